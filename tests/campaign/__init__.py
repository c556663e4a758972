"""Kills every script that writes, mutates every file that is read, and looks at what comes of it: ``make campaign``."""
