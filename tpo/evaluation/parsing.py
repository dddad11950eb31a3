"""Which option a model's words name. It never guesses: what names none, or several, is said to.

The rules are ours, tried one after the other; the first that finds anything decides.

1. the whole reply is a letter, or the text of an option
2. "the answer is C", "I choose (d)", a box, an answer tag: a letter or the text of an option right behind it
3. the reply begins with a letter ("C. a cow, because …") or the text of an option
4. a letter stands at the end, on a line of its own, in brackets, behind the word "option", or with its own text
5. one sentence, without any doubt in it, holds the text of exactly one option

A letter counts only as a word of its own, so "A dog" and "CCTV" name no letter. What is denied ("not B"), listed
("A, B and C") or taken back ("Actually …") is no answer.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tpo.records import PredictionStatus

_READ = 200  # characters on either side of a place; a runaway reply must not take for ever
_LETTER = re.compile(r"[(\[]?([A-Za-z])(?![A-Za-z0-9'-])([)\]]?)")
# What may stand behind a letter that is an answer: not a noun, or the letter would be an article, or a name's part.
_ENDS = re.compile(
    r"\s*(?:$|[;:!\n)\]—–]|[.,](?![A-Za-z0-9])|-\s|/\s*[A-Za-z]\b|[&+]"
    r"|(?:because|since|as|for|which|due|given|based|where|so|with|but|is|seems)\b)"
)
_TEXT_ENDS = re.compile(r"\s*(?:$|[;:!\n)—–]|[.,](?!\d)|(?:because|since|as)\b)")
_ARTICLE = re.compile(r"^(?:[Tt]he|[Aa]n?)\s+")
_LISTED = r"\s*(?:,\s*(?:and|or)|,|/|&|\+|and|or|nor|but|to|through|\s|\.)\s*"
_LISTED_AFTER = re.compile(_LISTED + r"[(\[]?([A-Za-z])(?=\s*(?:[)\],.;:/&!\n]|$)|\s+(?:and|or|nor)\b)")
_LISTED_BEFORE = re.compile(r"(?<![A-Za-z0-9'])([A-Za-z])[)\]]?" + _LISTED + r"(?:option\s+)?$")
_DOUBT = re.compile(
    r"\b(?:not|no|never|none|cannot|neither|nor|without|except|excluding|unless|whether|if|or|wrong|incorrect|false|"
    r"unlikely|unclear|unable|exclude|eliminate|discard|rule out|rather than|instead of|other than)\b|n't\b",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]]?\s*(?:(?:is|was|are|seems|looks|would be|must be)\s+(?:\w+ly\s+)?(?:not|wrong|incorrect|false|out\b)"
    r"|(?:isn't|wasn't|can't|cannot|doesn't|does not|can be (?:ruled|excluded|eliminated)))",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:actually|wait|correction|second thoughts?|sorry|instead|no)\b(.*)", re.IGNORECASE | re.DOTALL
)
_BE = r"(?:is|was|are|be|would be|should be|must be|has to be|seems to be|appears to be|might be|may be|could be)"
_KIND = r"(?:options?|choices?|letters?|answers?)"
_STATED = re.compile(
    rf"(?:\b(?:answer|option|choice|selection)s?(?:\s+to\s+\w+\s+question)?,?(?:\s+{_BE}\b|(?:\s+{_BE})?\s*[:=]+)"
    rf"|\banswer(?=\s)|\b(?:best|correct|right|final|my)\s+{_KIND}\b(?:\s+{_BE}\b)?"
    r"|(?:\bi(?:'d|'ll|'ve|'m)?(?:\s+\w+)?\s+|^)"
    r"(?:choose|chose|chosen|select|selected|pick|picked|go with|going with|opt for)\b"
    rf"|\bi(?:'d)?(?:\s+would)?\s+(?:think|believe|guess|say)\b(?:\s+(?:that\s+)?(?:it\s+is|it's)\b)?"
    rf"|\b(?:it|this|that)(?:'s|\s+{_BE})\b|答案(?:是|为)?)"
    rf"[\s:–—-]*(?:(?:\w+ly|therefore|thus|most likely)\s+)?(?:the\s+)?(?:{_KIND}\b[\s:]*)?",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSED = re.compile(r"(?<![A-Za-z0-9])[(\[]?([A-Za-z])[)\]]")
_IS_RIGHT = re.compile(
    r"(?<![A-Za-z0-9'-])[(\[]?(?=[A-Za-z][)\]]?\s+(?:is|seems|would be|must be)\s+(?:the\s+)?(?:only\s+|most\s+)?"
    r"(?:correct|right|best|answer|accurate|likely)\b)",
    re.IGNORECASE,
)
_PLACED = (
    re.compile(r"(?:,|\n|\b(?:so|thus|therefore|hence))\s*(?=(?:[A-HJ-Z]|[(\[][A-Za-z][)\]])[.!\s]*$)"),
    re.compile(r"(?<=[a-z]{3}[.!])\s(?=[A-HJ-Z][.!\s]*$)"),
    re.compile(r"^[ \t]*(?=[(\[]?[A-HJ-Z][)\]]?[.:]?[ \t]*$)", re.MULTILINE),
    re.compile(r"\b(?:option|choice)\s+(?=[(\[]?[A-Z]\b)", re.IGNORECASE),
    re.compile(r"(?=\([A-Z]\)\s*(?:[.,;!\n]|$))"),
)


@dataclass(frozen=True)
class Parsed:
    """The option that was named, an index; none unless the status is `ok`."""

    status: PredictionStatus
    option: int | None = None
    detail: str = ""


def parse_choice(text: str, options: Sequence[str]) -> Parsed:
    """The one option that `text` names, by its letter or by its text.

    Returns:
        `ok`: exactly one; `ambiguous`: several, or one that is also denied; `illegal`: a letter that the question does
        not have; `none`: no option.
    """
    said = _plain(text)
    if not said:
        return Parsed(PredictionStatus.NONE, detail="there is no answer, or only reasoning")
    reply = _Reply(said, [_plain_option(option) for option in options], _denied(said))
    for rule in (reply.whole, reply.stated, reply.begun, reply.placed, reply.held):
        if named := rule():
            return _decide(named | reply.taken_back(named), reply.denied, len(options))
    several = len(_letters(said)) > 1
    status = PredictionStatus.AMBIGUOUS if several else PredictionStatus.NONE
    return Parsed(status, detail="letters, but no answer among them" if several else "no option is named")


def _decide(named: set[int], denied: set[int], num_options: int) -> Parsed:
    letters = ", ".join(chr(ord("A") + number) for number in sorted(named))
    if len(named) > 1 or named & denied:
        said = "is named and denied" if named & denied else "may each be meant"
        return Parsed(PredictionStatus.AMBIGUOUS, detail=f"{letters} {said}")
    (number,) = named
    if number >= num_options:
        return Parsed(PredictionStatus.ILLEGAL, detail=f"{letters} is not among the {num_options} options")
    return Parsed(PredictionStatus.OK, number)


def _plain(text: str) -> str:
    """The answer without reasoning, markup and quotes; full-width characters as ASCII; "the answer is" for a box."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    text = re.sub(r"\A.*</(?:think|thinking|reasoning)>", "", text, flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(r"<(?:think|thinking|reasoning)>.*", "", text, flags=re.IGNORECASE | re.DOTALL)  # it never ended
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\boxed\s*\{([^{}]*)\}", r"\nthe answer is \1\n", text)
    text = re.sub(r"<answer>(.*?)</answer>", r"\nthe answer is \1\n", text, flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(r"(['_])([A-Za-z])\1", r"\2", re.sub(r"^[#>\s]+", "", text, flags=re.MULTILINE))
    text = re.sub(r"\*+|__|`|\\[()\[\]]|[\"“”„«»{}]|\$(?!\d)", "", text)
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))
    return text.strip().removesuffix(".").strip()


def _plain_option(option: str) -> str:
    return re.sub(r"\s+", " ", _plain(option)).casefold()


@dataclass(frozen=True)
class _Reply:
    """What was said, and the rules. Each gives the numbers of the options that it finds named, 0 for A.

    `denied` are those that are said to be wrong; it grows with the rules that were tried.
    """

    said: str
    options: Sequence[str]
    denied: set[int]

    def whole(self) -> set[int]:
        said = re.sub(r"\s+", " ", self.said).casefold()
        texts = {number for number, option in enumerate(self.options) if said == option}
        letter = re.fullmatch(r"[(\[{<]?([a-z])[)\]}>.:,!]*", said)
        return texts | ({_number(letter[1])} if letter else set())

    def stated(self) -> set[int]:
        statements = [*_STATED.finditer(self.said), *_IS_RIGHT.finditer(self.said)]
        named = self._named([(match.start(), match.end()) for match in statements])
        begins = _LETTER.match(self.said) and len(self._items()) < 2  # with several it repeats the options
        begun = self._named([(0, 0)]) if named and begins else set()
        return named | begun

    def begun(self) -> set[int]:
        named = self._named([(0, 0)])
        if not named:
            return set()
        listed = {_number(found[1]) for found in _CLOSED.finditer(self.said)} if _CLOSED.match(self.said) else set()
        return named | self._items() | listed

    def placed(self) -> set[int]:
        places = [(match.start(), match.end()) for place in _PLACED for match in place.finditer(self.said)]
        return self._named(places) | self._items() - self.denied

    def held(self) -> set[int]:
        """Of texts of several words alone: a number or a name may stand in a sentence for other reasons."""
        if re.search(r"[.!?\n]\s*\S|\?$", self.said) or _DOUBT.search(self.said):
            return set()
        return self._texts_held([option for option in self.options if " " in option])

    def taken_back(self, named: set[int]) -> set[int]:
        """Other letters behind a word like "actually"."""
        found = _TAKEN_BACK.search(self.said)
        others = _letters(found[1]) - named if found else set()
        return others if found and _letters(self.said[: found.start()]) & named else set()

    def _named(self, places: Sequence[tuple[int, int]]) -> set[int]:
        """What stands at the end of each place, a start and an end; what is denied there is put into `denied`."""
        named: set[int] = set()
        by_text: set[int] = set()
        for start, end in places:
            found = self._letter_at(end)
            if not found:
                found = self._text_at(end)
                by_text |= found
            clause = re.split(r"[.,;:!?\n]|\bbut\b", self._before(start))[-1]
            letter = _LETTER.match(self.said, end)
            if _DOUBT.search(clause) or (letter and _DENIED_AFTER.match(self.said, letter.end())):
                self.denied.update(found)
            else:
                named |= found | self._listed_before(end, found)
        # A text that is said beside those of other options may be what the answer is compared with.
        return named | (self._texts_held(self.options) if by_text & named else set())

    def _letter_at(self, place: int) -> set[int]:
        """The letter there, with others that are listed with it, or with another option whose text stands behind it."""
        found = _LETTER.match(self.said, place)
        if not found:
            return set()
        letter, closed, rest = found[1], found[2], self._from(found.end())
        number, is_alone = _number(letter), bool(found[2]) or rest[:1] in (".", ":", ",", ")", "\n")
        texts = self._texts_in(rest.lstrip(" .:,)-–—\n"))
        if number in texts:
            return {number}
        if texts and (is_alone or letter in "BCDEFGH"):
            return texts | {number}
        is_pronoun = letter in "Ii" and not closed and not re.match(r"[.:]\s|\n|$", rest)
        if listed := set(self._listed_after(rest)):
            return {number, *listed}
        if is_pronoun or re.match(r"\?|\s*(?:and|or)\b", rest) or not (closed or _ENDS.match(rest)):
            return set()
        return {number}

    def _before(self, place: int) -> str:
        return self.said[max(0, place - _READ) : place]

    def _from(self, place: int) -> str:
        return self.said[place : place + _READ + 2 * max(map(len, self.options))]

    def _listed_after(self, rest: str) -> Iterator[int]:
        while found := _LISTED_AFTER.match(rest):
            yield _number(found[1])
            rest = rest[found.end() :].lstrip(")]")

    def _listed_before(self, place: int, found: set[int]) -> set[int]:
        before = _LISTED_BEFORE.search(self._before(place)) if found else None
        return {_number(before[1])} if before else set()

    def _text_at(self, place: int) -> set[int]:
        """The option whose text stands there, up to the end of a phrase."""
        there = self._from(place)
        return self._texts_in(there, ends=True) or self._texts_in(_ARTICLE.sub("", there), ends=True)

    def _texts_held(self, texts: Sequence[str]) -> set[int]:
        """The options whose texts stand anywhere in what was said; of texts within others the longer ones."""
        longest_first = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True) if text)
        if not longest_first:
            return set()
        held = {found[0] for found in re.finditer(rf"(?<!\w)(?:{longest_first})(?!\w)", self.said.casefold())}
        return {number for number, option in enumerate(self.options) if option in held}

    def _texts_in(self, rest: str, *, ends: bool = False) -> set[int]:
        """The options whose text `rest` begins with, the longest of them; with `ends` a phrase must end there."""
        rest = rest.casefold()
        found = [
            number
            for number, option in enumerate(self.options)
            if option and rest.startswith(option) and re.match(r"(?![\w%°]|[.,:]\d)", rest[len(option) :])
            if not ends or _TEXT_ENDS.match(rest[len(option) :])
        ]
        longest = max((len(self.options[number]) for number in found), default=0)
        return {number for number in found if len(self.options[number]) == longest}

    def _items(self) -> set[int]:
        """The options that the reply repeats, each with its letter."""
        starts = re.finditer(r"(?<![A-Za-z0-9'])[(\[]?([A-Za-z])[)\].:]+\s*", self.said)
        return {_number(start[1]) for start in starts if _number(start[1]) in self._texts_in(self._from(start.end()))}


def _denied(said: str) -> set[int]:
    """The letters that are said to be wrong."""
    tokens = re.finditer(r"(?<![A-Za-z0-9'])([A-HJ-Za-hj-z])(?![A-Za-z0-9'-])", said)
    return {_number(token[1]) for token in tokens if _DENIED_AFTER.match(said, token.end())}


def _letters(said: str) -> set[int]:
    """Every capital that stands alone, unless it is an article."""
    tokens = re.finditer(
        r"(?<![A-Za-z0-9'.-])([A-HJ-Z])(?![A-Za-z0-9'-]|\.\w)(?!(?<=A) (?!(?:but|and|or|nor|is)\b)[a-z])", said
    )
    return {_number(token[1]) for token in tokens}


def _number(letter: str) -> int:
    return ord(letter.upper()) - ord("A")
