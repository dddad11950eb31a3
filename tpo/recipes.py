"""Recipes: settings of a published or a tried run (`recipes/*.yaml`), put into a `params.yaml` that stays the user's.

    text = with_recipe(Path("params.yaml").read_text(), recipe("longva").read_text())

Only the values that a recipe names are exchanged, in the text itself: everything else stays as it was written, comments
and order too. A YAML library that loads and dumps would lose the comments, or write the file in its own style.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tpo.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "recipes"  # of the clone that this code is in
_COMMENT = re.compile(r"( +)#")


def recipes() -> dict[str, str]:
    """What there is, by name: the first line of each, which says what it is for."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}


def recipe(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: there is none of this name; says which there are.
    """
    if name not in (known := recipes()):
        raise UserError(f"There is no recipe {name!r}. There are: {', '.join(known) or f'none in {FOLDER}'}.")
    return FOLDER / f"{name}.yaml"


def with_recipe(params: str, recipe: str) -> str:
    """The text of a `params.yaml` with what a recipe's sections set; a value that is the same already is not touched.

    A comment behind a value stays, one within a list or mapping that is exchanged goes with it.

    Raises:
        UserError: the file has no such section, or is written in a way that is not understood here.
    """
    mine, wanted = _load(params), _load(recipe)
    sections = {name.value: entries for name, entries in _entries_of(params)}
    edits: list[tuple[int, int, str]] = []
    for name, theirs in _entries_of(recipe):
        ours = sections.get(name.value)
        if not ours:
            raise UserError(f"params.yaml has no section `{name.value}:` with settings on lines of their own.")
        for key, entry in theirs.items():
            if key not in ours:
                last = list(ours.values())[-1]
                end = _line_end(params, last.end)
                edits.append((end, end, f"\n{' ' * last.indent}{key}:{entry.inline}{entry.body_at(last.indent)}"))
            elif repr(mine[name.value][key]) != repr(wanted[name.value][key]):
                edits.append(_exchange(params, ours[key], entry))
    new = params
    for begin, end, text in sorted(edits, reverse=True):
        new = new[:begin] + text + new[end:]
    if not _says(new, {name: section | wanted.get(name, {}) for name, section in mine.items()}):
        raise UserError(
            "params.yaml is written in a way that cannot be edited here (anchors? long texts?). Nothing was changed. "
            "Copy the recipe's sections by hand."
        )
    return new


def _says(text: str, content: dict[str, Any]) -> bool:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return bool(found == content)


class _Entry(NamedTuple):
    """A `key: value` of a section, by places in the text: behind the colon, where the value begins, where it ends."""

    text: str
    indent: int
    colon: int
    begin: int
    end: int

    @property
    def is_block(self) -> bool:
        """Whether the value stands on lines of its own, below the key."""
        return "\n" in self.text[self.colon : self.begin]

    @property
    def inline(self) -> str:
        return "" if self.is_block else " " + self.text[self.begin : self.end]

    def body_at(self, indent: int) -> str:
        """The lines below the key, for a key that is indented so far."""
        if not self.is_block:
            return ""
        lines = self.text[self.text.rindex("\n", 0, self.begin) + 1 : self.end].split("\n")
        return "".join(
            f"\n{' ' * (indent - self.indent + len(line) - len(line.lstrip()))}{line.lstrip()}" for line in lines
        )


def _exchange(text: str, old: _Entry, new: _Entry) -> tuple[int, int, str]:
    """Begin, end and text of the edit that gives `old` the value of `new`."""
    head_end = old.colon if old.is_block else old.end
    rest = text[head_end : _line_end(text, head_end)]
    if comment := _COMMENT.match(rest):  # in its old column, if there is room
        column = head_end + len(comment[1])
        rest = " " * max(column - old.colon - len(new.inline), 2) + rest[len(comment[1]) :]
    head = f"{new.inline}{rest}{new.body_at(old.indent)}"
    if not old.is_block:
        return old.colon, _line_end(text, old.end), head
    behind = text[old.end : _line_end(text, old.end)].strip()
    return old.colon, old.end, head + "\n" if behind and not new.is_block else head


def _entries_of(text: str) -> Iterator[tuple[yaml.ScalarNode, dict[str, _Entry]]]:
    """The sections of a file and what each of them sets; nothing for one that is no mapping over several lines."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for name, section in root.value if isinstance(root, yaml.MappingNode) else ():
        entries = {}
        if isinstance(section, yaml.MappingNode) and not section.flow_style:
            for key, value in section.value:
                colon = text.index(":", key.end_mark.index) + 1
                entries[key.value] = _Entry(text, key.start_mark.column, colon, value.start_mark.index, _end(value))
        yield name, entries


def _end(node: yaml.Node) -> int:
    """Where the last word of a value ends; the parser counts what follows a block, comments too, as a part of it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _line_end(text: str, place: int) -> int:
    found = text.find("\n", place)
    return len(text) if found < 0 else found


def _load(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise UserError("params.yaml holds no sections of settings. `git checkout params.yaml` brings the shipped one.")
    return content
