"""How Great Expectations draws its own pages here. It imports this module by the name that `site` gives it.

Its own template loads styles and scripts from other hosts; this one loads nothing, so a page is the same without a
network.
"""

from typing import ClassVar

from great_expectations.render.view.view import DefaultJinjaPageView

from tpo.validation.data_docs import TEMPLATES


class PageView(DefaultJinjaPageView):
    _template: ClassVar[str] = "page.html.jinja"

    def __init__(self) -> None:
        super().__init__(custom_views_directory=TEMPLATES)
