"""Kill the scripts that write, mutate the files that they read, and look at what comes of it: ``make campaign``."""
