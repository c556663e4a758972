"""Tables of other data sets: which file it is, its columns, and the findings that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.image_folders import is_hidden
from dataset.tables import Table, squeeze
from utils import UserError

PNEUMONIA = "Pneumonia"  # the finding that counts as positive unless others are asked for


def only_file(folder: Path, wanted: str) -> Path:
    """Return the only file in ``folder`` that fits the pattern ``wanted``; raises ``UserError`` if there is not one."""
    found = sorted(path for path in folder.glob(wanted) if not is_hidden(path.name))
    if not found:
        raise UserError(f"{folder} holds no {wanted}; give the folder that holds the table and the images")
    if len(found) > 1:
        both = f"{found[0].name}, {found[1].name}"
        raise UserError(f"{folder} holds {len(found)} files {wanted} ({both}); name the right one, or keep only that")
    return found[0]


def folder_of(source: Path, name: str) -> Path:
    """Return ``source``, or its first subfolder, that holds ``name``; raises ``UserError`` if none does."""
    inner = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in (source, *inner):
        if (folder / name).is_file():
            return folder
    raise UserError(f"{source} holds no {name}; give the folder that holds the tables and the images")


def read_columns(table: Table, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the cells of the columns ``names`` (meaning -> name); raises ``UserError`` if one is missing."""
    squeezed = table.squeezed
    if missing := [name for name in names.values() if squeeze(name) not in squeezed]:
        raise UserError(f"{table.path} has no column {missing[0]}; its columns are {table.listed_names}")
    return {key: table.column(squeezed.index(squeeze(name))) for key, name in names.items()}


def find_findings(asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the findings ``asked`` for as the set spells them; raises ``UserError`` for one it does not have."""
    spelling = {squeeze(name): name for name in known if name}
    if unknown := [name for name in asked if squeeze(name) not in spelling]:
        raise UserError(f"--positive {unknown[0]}: there is no such finding; there are {', '.join(spelling.values())}")
    return list(dict.fromkeys(spelling[squeeze(name)] for name in asked))
