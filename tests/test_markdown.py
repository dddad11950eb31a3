"""Whatever text says, Markdown shows it as it is; asked of a real renderer."""

import html

import pytest
from markdown_it import MarkdownIt

from tpo.markdown import escaped


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> <b>x</b> &lt; &#60;",
        "[x](javascript:y) ![x](http://host/x.png) <http://host> ![][1]",
        "*z* _z_ __z__ ~~z~~ `q` ``q`` \\* \\",
        "# no heading",
        "- no list",
        "+ no list",
        "1. no list",
        "12) no list",
        "> no quote",
        "--- | a | b |",
        "=== x",
        "http://host/x www.host.org me@host.org",
        "a\n\n# b\n- c",
        "demo/checkpoint, Apache-2.0, +3.1 points [+1.0, +5.2], p 0.002 (Holm).",
    ],
)
def test_text_is_shown_as_it_is_in_a_list_and_alone(text: str) -> None:
    shown = html.escape(" ".join(text.split()), quote=False)
    render = MarkdownIt("gfm-like", {"linkify": False}).render
    for before, around in (("", "<p>{}</p>\n"), ("- ", "<ul>\n<li>{}</li>\n</ul>\n")):
        assert render(before + escaped(text)).replace("&quot;", '"') == around.format(shown)


def test_plain_text_stays_readable() -> None:
    assert (
        escaped("demo/checkpoint: Apache-2.0, 5.2 points; DVC 0f3a.dir")
        == "demo/checkpoint: Apache-2.0, 5.2 points; DVC 0f3a.dir"
    )
