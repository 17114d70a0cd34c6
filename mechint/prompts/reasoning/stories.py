"""The words of arithmetic problems: what is counted, how it begins, what happens to it, and how a step says so.

A move is what the question says and, beside it, two ways in which the solution says it. In braces: {name}, {things},
{now} (the number so far), {by} (the number of this move), {equation}.
"""

NAMES = (
    *("Anna", "Peter", "Laura", "Mark", "Julia", "David", "Emma", "Paul", "Sarah", "Tom", "Alice", "George", "Susan"),
    *("Robert", "Helen", "Frank", "Linda", "Kevin", "Nancy", "Brian", "Lucy", "Jack", "Rachel", "Daniel", "Olivia"),
)
THINGS = (
    *("marbles", "stamps", "apples", "books", "pencils", "coins", "cards", "shells", "cookies", "tickets", "flowers"),
    *("stickers", "buttons", "eggs", "candles", "photos", "oranges", "beads", "bricks", "plants", "letters", "cups"),
)
BEGINNINGS = (
    "{name} has {now} {things}.",
    "On Monday {name} counts {now} {things}.",
    "There are {now} {things} on the table of {name}.",
    "{name} begins the week with {now} {things}.",
    "A shop delivers {now} {things} to {name}.",
)
FIRST = ("First,", "To begin,", "At first,", "First of all,")
NEXT = ("Next,", "Then,", "After that,", "Now,")
ENDINGS = (
    "How many {things} does {name} have at the end?",
    "How many {things} are there now?",
    "What number of {things} is left with {name}?",
)

Move = tuple[str, tuple[str, str]]
MOVES: dict[str, tuple[Move, ...]] = {
    "+": (
        ("{name} buys {by} more.", ("adding the {by} new ones gives {equation} {things}.", "we have {equation}.")),
        (
            "A friend brings {by} more.",
            ("with those of the friend it is {equation}.", "{equation} {things} are there."),
        ),
        ("{name} finds another {by} in a box.", ("the box makes it {equation} {things}.", "we add {equation}.")),
        ("Another {by} arrive by post.", ("the post brings them to {equation}.", "that makes {equation} {things}.")),
        ("{name} wins {by} in a game.", ("after the game it is {equation} {things}.", "the total is {equation}.")),
        ("A neighbour adds {by} to them.", ("the neighbour makes it {equation}.", "now it is {equation} {things}.")),
    ),
    "-": (
        ("{name} gives {by} away.", ("taking those away leaves {equation} {things}.", "what is left is {equation}.")),
        ("{name} sells {by} of them.", ("after the sale there are {equation} {things}.", "we subtract {equation}.")),
        ("{by} of them get lost.", ("without the lost ones it is {equation}.", "there remain {equation} {things}.")),
        ("A cousin borrows {by}.", ("the cousin leaves {equation} {things}.", "minus those it is {equation}.")),
        ("{by} are damaged and thrown out.", ("without the damaged ones it is {equation}.", "we keep {equation}.")),
        ("{name} puts {by} aside for later.", ("not counting those, {equation} {things}.", "that leaves {equation}.")),
    ),
    "*": (
        ("A week later there are {by} times as many.", ("multiplying gives {equation} {things}.", "it is {equation}.")),
        (
            "Then the number grows to {by} times what it was.",
            ("it grows to {equation}.", "that is {equation} {things}."),
        ),
        ("{name} collects until there are {by} times as many.", ("we get {equation} {things}.", "we need {equation}.")),
        ("A machine turns each of them into {by}.", ("the machine makes {equation} {things}.", "it is {equation}.")),
        (
            "Each one is exchanged for {by} smaller ones.",
            ("after the exchange, {equation}.", "it is {equation} {things}."),
        ),
    ),
    "/": (
        (
            "They are shared equally among {by} people, one of them {name}.",
            ("each gets {equation}.", "it is {equation}."),
        ),
        (
            "{name} packs them evenly in {by} bags and keeps one bag.",
            ("one bag holds {equation} {things}.", "{equation}."),
        ),
        ("Only one in {by} is good enough to keep.", ("we keep {equation} {things}.", "dividing gives {equation}.")),
        (
            "They are put in {by} equal rows, and one row stays.",
            ("a row has {equation} {things}.", "it is {equation}."),
        ),
        ("{name} splits them into {by} equal piles and keeps one.", ("a pile has {equation}.", "{equation} {things}.")),
    ),
}
"""By operator."""
