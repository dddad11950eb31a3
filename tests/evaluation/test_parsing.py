"""The table is the contract: what a reply means, and why. A wrong `ok` is the worst outcome."""

import time
from collections.abc import Sequence

import pytest

from tpo.evaluation.parsing import parse_choice
from tpo.records import PredictionStatus

OK, AMBIGUOUS, NONE, ILLEGAL = (PredictionStatus(s) for s in ("ok", "ambiguous", "none", "illegal"))

PETS = ("a dog", "a cat", "a cow", "a horse")
FRUIT = ("Apples", "Pears", "Berries", "Plums")
NUMBERS = ("2", "12", "3", "13")
CHORDS = ("C major", "D minor", "F major", "A minor")
PEOPLE = ("D. Moss", "J. Reed", "B. Cole", "H. Dunn")
TWINS = ("a red ball", "a blue ball", "a red ball", "a kite")
NESTED = ("red", "red and blue", "dark red", "blue")
TRAPS = ("Both A and B", "Only A", "None of the above", "It cannot be determined")
SIX = ("north", "south", "east", "west", "up", "down")
EIGHT = tuple(f"scene {n}" for n in range(1, 9))
FOURTEEN = tuple(f"step {n}" for n in range(1, 15))
BINARY = ("Yes", "No")

NAMED: list[tuple[str, Sequence[str], str, str]] = [
    ("C", PETS, "C", "a bare letter"),
    (" C \n", PETS, "C", "white space around it"),
    ("c", PETS, "C", "a bare letter in lower case"),
    ("a", PETS, "A", "alone it is no article"),
    ("(C)", PETS, "C", "brackets"),
    ("[C]", PETS, "C", "square brackets"),
    ("C)", PETS, "C", "the prompt may end with the opening bracket"),
    ("C.", PETS, "C", "a full stop"),
    ("C:", PETS, "C", "a colon"),
    ("'C'", PETS, "C", "single quotes"),
    ('"C"', PETS, "C", "double quotes"),
    ("**C**", PETS, "C", "markdown"),
    ("**C.** a cow", PETS, "C", "markdown and its text"),
    ("`C`", PETS, "C", "code"),
    ("### Answer\nB", PETS, "B", "a heading"),
    (r"\boxed{C}", PETS, "C", "LaTeX"),
    (r"$\boxed{\text{C}}$", PETS, "C", "LaTeX, text in a box in a formula"),
    (r"The dog comes last. \boxed{B. a cat}", PETS, "B", "a box with the text, behind reasoning"),
    ("（Ｃ）", PETS, "C", "full-width brackets and letter"),
    ("Ｃ．", PETS, "C", "full-width letter and stop"),
    ("C. a cow", PETS, "C", "letter and text"),
    ("(c) a cow", PETS, "C", "lower-case letter and text"),
    ("b) a cat", PETS, "B", "lower case with one bracket"),
    ("B a cat", PETS, "B", "its own text right behind the letter"),
    ("B.a cat", PETS, "B", "no space"),
    ("A: a dog", PETS, "A", "a colon between them"),
    ("A. A dog", PETS, "A", "an article behind the letter"),
    ("C - a cow", PETS, "C", "a dash between them"),
    ("a cow", PETS, "C", "the text alone"),
    ("A COW.", PETS, "C", "the text in another case, with a stop"),
    ("A dog", PETS, "A", "the text begins with what looks like a letter"),
    ("A dog", ("a bird", "a dog", "a fish", "a cat"), "B", "the text, and not the letter A"),
    ("A dog runs", ("a bird", "a dog", "a fish", "a cat"), "B", "an article: the text is what was said"),
    ("The answer is a dog.", ("a bird", "a dog", "a fish", "a cat"), "B", "an article behind a lead-in"),
    ("Berries.", FRUIT, "C", "a text of one word"),
    ("Berries, because they are small", FRUIT, "C", "a text, then why"),
    ("Answer: Berries", FRUIT, "C", "a lead-in and a text"),
    ("The correct option is (C) Berries.", FRUIT, "C", "the B of Berries is no letter"),
    ("The answer is C", PETS, "C", "a lead-in"),
    ("THE ANSWER IS C.", PETS, "C", "in capitals"),
    ("the answer is c", PETS, "C", "in lower case"),
    ("the answer is a", PETS, "A", "at the end it is no article"),
    ("Answer: c", PETS, "C", "short, lower case"),
    ("Answer:C", PETS, "C", "no space"),
    ("Answer B", PETS, "B", "no colon"),
    ("My answer is: (B).", PETS, "B", "copula and colon"),
    ("The best option is D.", PETS, "D", "best option"),
    ("Best Option: (C) a cow", PETS, "C", "MLVU's lead-in repeated"),
    ("The correct choice would be B", PETS, "B", "would be"),
    ("Final Answer: **B**", PETS, "B", "final answer"),
    ("Option B", PETS, "B", "option"),
    ("The answer is option B.", PETS, "B", "two nouns"),
    ("I would choose (d)", PETS, "D", "choose"),
    ("I'd go with C.", PETS, "C", "go with"),
    ("I'd say B", PETS, "B", "say"),
    ("The answer is _C_", PETS, "C", "emphasis"),
    ("Answer - C", PETS, "C", "a dash"),
    ("Let me see. C", PETS, "C", "a sentence of its own at the end"),
    ("Yes, B", PETS, "B", "at the end, behind a comma"),
    ("a cow (C)", PETS, "C", "text, then letter"),
    ("I would not choose B, I would choose C", PETS, "C", "another is refused"),
    ("The answer is clearly C.", PETS, "C", "an adverb"),
    ("The answer to the question is C.", PETS, "C", "to the question"),
    ("A is wrong, B is wrong, C is right.", PETS, "C", "the others are denied"),
    ("The scene that fits best is (C).", PETS, "C", "in brackets at the end of a sentence"),
    ("I think it's B.", PETS, "B", "think"),
    ("It is C.", PETS, "C", "it is"),
    ("B is correct.", PETS, "B", "is correct"),
    ("(B) is the best answer because it fits.", PETS, "B", "is the best answer"),
    ("Option A is the best answer. It shows the dog.", PETS, "A", "A is a letter here"),
    ('{"answer": "C"}', PETS, "C", "JSON"),
    ("<answer>B</answer>", PETS, "B", "an answer tag"),
    ("答案是C", PETS, "C", "Chinese, no space"),
    ("Based on the video, C", PETS, "C", "the B of Based is no letter"),
    ("The man leaves at the end. Therefore (B).", PETS, "B", "at the end, in brackets"),
    ("The sound is A. A flower.", ("a flower", "a star", "a circle", "a square"), "A", "letter and text in a sentence"),
    ("<think>A? The answer is A.</think>C", PETS, "C", "reasoning in tags does not count"),
    ("it may be A or B, the answer is A</think>\n\nC", PETS, "C", "the opening tag was in the prompt"),
    ("First a dog (A), then a cat (B). So the answer is C.", PETS, "C", "reasoning before the answer"),
    ("Option A shows a dog. Option B a cat. The answer is C.", PETS, "C", "every option is discussed before"),
    ("So the video shows a dog first.\n\nC", PETS, "C", "reasoning, then a line of its own"),
    ("A. a dog\nB. a cat\nC. a cow\nD. a horse\nAnswer: B", PETS, "B", "the options repeated, then the answer"),
    ("C. The animal after the dog is brown.", PETS, "C", "explanation after it"),
    ("C, because it is brown", PETS, "C", "because"),
    ("C\n\nThe video shows it between A and B.", PETS, "C", "explanation in a paragraph of its own"),
    ("The answer is C because A and B are wrong.", PETS, "C", "others are only mentioned after it"),
    ("The answer is C, not A.", PETS, "C", "another is denied"),
    ("I don't know, but the answer is B", PETS, "B", "the doubt ends with but"),
    ("It shows a dog running", PETS, "A", "one sentence with the text of one option"),
    ("2", NUMBERS, "A", "a number"),
    ("12", NUMBERS, "B", "a number that holds another option"),
    ("The answer is 12.", NUMBERS, "B", "and behind a lead-in"),
    ("B. 12", NUMBERS, "B", "letter and number"),
    ("C major", CHORDS, "A", "the text, and not the letter C"),
    ("The answer is C major.", CHORDS, "A", "also behind a lead-in"),
    ("D. Moss", PEOPLE, "A", "a name's initial is no letter"),
    ("red and blue", NESTED, "B", "the longer of two texts"),
    ("The answer is red and blue.", NESTED, "B", "also behind a lead-in"),
    ("dark red", NESTED, "C", "a text that ends with another"),
    ("A. a red ball", TWINS, "A", "the letter tells options of one text apart"),
    ("None of the above", TRAPS, "C", "it is an option"),
    ("D. It cannot be determined", TRAPS, "D", "cannot is the option's own word"),
    ("Both A and B", TRAPS, "A", "the letters are the option's own"),
    ("E", (*PETS, "a pig"), "E", "five options"),
    ("The answer is F.", SIX, "F", "six options"),
    ("(h)", EIGHT, "H", "eight options"),
    ("N", FOURTEEN, "N", "fourteen options"),
    ("I", FOURTEEN, "I", "no pronoun where there are so many options"),
    ("No", BINARY, "B", "yes or no"),
]

NOT_NAMED: list[tuple[str, Sequence[str], PredictionStatus, str]] = [
    ("", PETS, NONE, "empty"),
    (" \n", PETS, NONE, "white space"),
    (".", PETS, NONE, "punctuation"),
    ("CCTV", PETS, NONE, "a word of letters"),
    ("Because", PETS, NONE, "a word that starts with one"),
    ("Dad", PETS, NONE, "and ends with one"),
    ("A man is walking", PETS, NONE, "an article"),
    ("A", ("B", "A"), AMBIGUOUS, "the letter of one, the text of another"),
    ("I see nothing", FOURTEEN, NONE, "a pronoun"),
    ("I, too, think so", PETS, NONE, "a pronoun with a comma"),
    ("Vitamin C is shown", PETS, NONE, "part of a name"),
    ("Plan B was used", PETS, NONE, "part of a name"),
    ("A's turn", PETS, NONE, "a genitive"),
    ("B-52", PETS, NONE, "part of a name, with a hyphen"),
    ("The U.S. team", PETS, NONE, "an abbreviation"),
    ("at 5 a.m. he leaves", PETS, NONE, "an abbreviation"),
    ("The man in (C) is seen.", PETS, NONE, "a label in the picture"),
    ("The first option", PETS, NONE, "counted, not lettered: not taken for granted"),
    ("A, B and C", PETS, AMBIGUOUS, "an enumeration"),
    ("A and B", PETS, AMBIGUOUS, "two"),
    ("A/B", PETS, AMBIGUOUS, "two"),
    ("A B", PETS, AMBIGUOUS, "two"),
    ("AB", PETS, NONE, "a word"),
    ("(A), (C)", PETS, AMBIGUOUS, "two in brackets"),
    ("C or D", PETS, AMBIGUOUS, "undecided"),
    ("The answer is A or B", PETS, AMBIGUOUS, "undecided behind a lead-in"),
    ("the answer is either A or B", PETS, AMBIGUOUS, "undecided"),
    ("Based on options A, B, C", PETS, AMBIGUOUS, "the last of a list is no answer"),
    ("The answer is A. The answer is B.", PETS, AMBIGUOUS, "two statements"),
    ("<answer>B</answer><answer>C</answer>", PETS, AMBIGUOUS, "two tags"),
    ("A. The correct answer is B.", PETS, AMBIGUOUS, "it begins with another than it states"),
    ("The answer is A. Actually, B.", PETS, AMBIGUOUS, "taken back"),
    ("The answer is A. No, wait, it is B.", PETS, AMBIGUOUS, "taken back"),
    ("A. a dog\nB. a cat\nC. a cow\nD. a horse", PETS, AMBIGUOUS, "the options repeated, and no answer"),
    ("B. a dog", PETS, AMBIGUOUS, "letter of one, text of another"),
    ("The answer is C: a dog", PETS, AMBIGUOUS, "the same behind a lead-in"),
    ("not A but B", PETS, AMBIGUOUS, "a negation and a letter: not interpreted"),
    ("It is not B", PETS, NONE, "a negation"),
    ("The answer is not B.", PETS, NONE, "a negation behind a lead-in"),
    ("I don't think the answer is B", PETS, NONE, "a negation before the lead-in"),
    ("B is not correct.", PETS, NONE, "a negation behind the letter"),
    ("Option B is wrong.", PETS, NONE, "wrong"),
    ("Neither A nor B is correct.", PETS, AMBIGUOUS, "neither"),
    ("The answer is B. But B is not correct.", PETS, AMBIGUOUS, "named and denied"),
    ("A\nB\nC\nD", PETS, AMBIGUOUS, "letters on lines of their own"),
    ("B\nC", PETS, AMBIGUOUS, "two of them"),
    ("A or maybe C", PETS, AMBIGUOUS, "undecided"),
    ("Answer: A or maybe C", PETS, AMBIGUOUS, "undecided behind a lead-in"),
    ("A dog is seen. B is heard.", PETS, NONE, "narration that begins with a text"),
    ("The person chose the letter B", PETS, NONE, "narration"),
    ("C#", PETS, NONE, "a name"),
    ("C?", PETS, NONE, "not sure"),
    ("the correct answer is A. a cat", PETS, AMBIGUOUS, "letter of one, text of another, behind a lead-in"),
    ("It is a cat, not a dog", PETS, AMBIGUOUS, "a text and a denied text: not interpreted"),
    ("Everything but B", PETS, NONE, "an exception"),
    ("I got an A", PETS, NONE, "a mark"),
    ("a) first he runs, b) then he jumps", PETS, AMBIGUOUS, "a list in the reply's own order"),
    ("A) a dog, B) a cat", PETS, AMBIGUOUS, "two options with their texts"),
    ("Answer: both A and B", PETS, AMBIGUOUS, "two behind a lead-in"),
    ("The man chose B.", PETS, NONE, "somebody else's choice"),
    ("It is D Day", PETS, NONE, "part of a name behind a lead-in"),
    ("Answer: B\n\nQuestion: What next?\nAnswer: C", PETS, AMBIGUOUS, "it went on asking itself"),
    ("It is not a dog", PETS, NONE, "a text is denied"),
    ("It may be a dog or a cat", PETS, NONE, "undecided between texts"),
    ("a dog, a cat", PETS, AMBIGUOUS, "two texts"),
    ("Is the answer C?", PETS, NONE, "a question"),
    ("If he leaves, is it C?", PETS, NONE, "a question with a condition"),
    ("a red ball", TWINS, AMBIGUOUS, "two options have this text"),
    ("There are 2 dogs and 3 cats.", NUMBERS, NONE, "numbers in a sentence"),
    ("The player with number 2 scores.", NUMBERS, NONE, "a number that means something else"),
    ("2.5", NUMBERS, NONE, "another number that begins with an option"),
    ("2%", NUMBERS, NONE, "a share"),
    ("21", NUMBERS, NONE, "a number that is no option"),
    ("2, 3", NUMBERS, AMBIGUOUS, "two numbers"),
    ("The answer is a bird", PETS, NONE, "a text that is no option"),
    ("I cannot answer this question.", PETS, NONE, "refusal"),
    ("I'm sorry, I can't see the video.", PETS, NONE, "refusal"),
    ("None of the above", PETS, NONE, "no such option"),
    ("As an AI, I cannot tell whether it is B.", PETS, NONE, "refusal that mentions a letter"),
    ("<think>so A. The answer is A", PETS, NONE, "reasoning that was cut"),
    ("<think>A</think>", PETS, NONE, "reasoning alone"),
    ("E", PETS, ILLEGAL, "a letter that the question does not have"),
    ("(e)", PETS, ILLEGAL, "in lower case"),
    ("The answer is F.", PETS, ILLEGAL, "behind a lead-in"),
    ("G. a goat", PETS, ILLEGAL, "with a text that there is not"),
    ("I", PETS, ILLEGAL, "alone it is a letter"),
    ("A or E", PETS, AMBIGUOUS, "one that there is and one that there is not"),
    ("H", SIX, ILLEGAL, "beyond six options"),
    ("O", FOURTEEN, ILLEGAL, "beyond fourteen"),
]


@pytest.mark.parametrize(("text", "options", "letter", "why"), NAMED)
def test_an_option_that_is_named_is_found(text: str, options: Sequence[str], letter: str, why: str) -> None:
    parsed = parse_choice(text, options)
    assert (parsed.status, parsed.option) == (OK, ord(letter) - ord("A")), f"{why}: {parsed}"


@pytest.mark.parametrize(("text", "options", "status", "why"), NOT_NAMED)
def test_what_names_no_option_or_several_is_never_guessed(
    text: str, options: Sequence[str], status: PredictionStatus, why: str
) -> None:
    parsed = parse_choice(text, options)
    assert (parsed.status, parsed.option) == (status, None), f"{why}: {parsed}"
    assert parsed.detail, "a person is told why"


@pytest.mark.parametrize("options", [PETS, (*PETS, "a pig"), SIX, EIGHT, FOURTEEN])
@pytest.mark.parametrize(
    "form",
    ["{}", "({})", "{}.", "{})", "**{}**", "The answer is {}.", "Option {}", "{}\n\nIt is seen.", "So it is ({})"],
)
def test_every_letter_of_every_number_of_options_is_found_in_every_form(form: str, options: Sequence[str]) -> None:
    for number in range(len(options)):
        assert parse_choice(form.format(chr(ord("A") + number)), options).option == number


@pytest.mark.parametrize("options", [PETS, FRUIT, NUMBERS, CHORDS, PEOPLE, NESTED, TRAPS, SIX, EIGHT, FOURTEEN, BINARY])
def test_every_text_alone_and_behind_its_letter_is_its_option(options: Sequence[str]) -> None:
    for number, option in enumerate(options):
        letter = chr(ord("A") + number)
        for text in (
            option,
            option.upper(),
            f"{option}.",
            f"{letter}. {option}",
            f"The answer is ({letter}) {option}.",
        ):
            assert parse_choice(text, options).option == number, text


@pytest.mark.parametrize(
    "word", ["the answer is ", "A ", "C, ", "<think>", "(", "\n", "a dog ", "the answer is a dog. "]
)
def test_a_reply_that_never_ends_does_not_take_for_ever(word: str) -> None:
    start_s = time.monotonic()
    parse_choice(word * 5000, PETS)
    assert time.monotonic() - start_s < 5
