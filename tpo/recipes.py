"""Recipes: settings of a published or a tried run (`recipes/*.yaml`), put into a `params.yaml` that stays the user's.

text = with_recipe(Path("params.yaml").read_text(), recipe("longva").read_text())
"""

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from tpo.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "recipes"  # of the clone that this code is in
_NO_LIMIT = 1 << 16  # characters in a line, before it is broken


class _Representer(RoundTripRepresenter):
    """null as the word, as `params.yaml` has it: a blank looks like something that was forgotten."""

    def represent_none(self, _: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


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
    """The text of a `params.yaml` with what a recipe's sections set; everything else stays, comments and order too.

    What stands within or right behind a list or mapping that is exchanged goes with it. A file that is indented
    otherwise than the shipped one gets its layout.

    Raises:
        UserError: the file is no YAML, or has no such section.
    """
    yaml = YAML()
    yaml.Representer, yaml.width, yaml.preserve_quotes = _Representer, _NO_LIMIT, True
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the shipped file is written
    mine, wanted = _load(yaml, params), _load(yaml, recipe)
    for name, settings in wanted.items():
        section = mine.get(name)
        if not isinstance(section, CommentedMap):
            raise UserError(f"params.yaml has no section `{name}:`. `git diff params.yaml` shows what was changed.")
        for key, value in settings.items():
            if key not in section:
                section.insert(0, key, value)  # what stands behind the last one may belong to the next section
            elif section[key] != value:
                section[key] = value
    text = StringIO()
    yaml.dump(mine, text)
    return text.getvalue()


def _load(yaml: YAML, text: str) -> CommentedMap:
    try:
        content = yaml.load(text)
    except YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {error}") from error
    if not isinstance(content, CommentedMap):
        raise UserError("params.yaml holds no sections of settings. `git checkout params.yaml` brings the shipped one.")
    return content
