"""The lists from which contrast texts and openings of concepts are made; English, and some French."""

SUBJECTS = (
    *("film", "meal", "hotel", "concert", "book", "journey", "garden", "party", "lecture", "holiday", "play", "dinner"),
    *("museum", "song", "novel", "festival", "exhibition", "breakfast", "market", "picture", "story", "show"),
    *("restaurant", "weekend", "performance", "wedding", "picnic", "café"),
)
GOOD = ("wonderful", "excellent", "delightful", "superb", "charming", "marvellous", "lovely", "splendid")
BAD = ("terrible", "awful", "dreadful", "horrible", "miserable", "nasty", "appalling", "hideous")
LIKED = ("loved", "enjoyed", "adored", "admired")
DISLIKED = ("hated", "loathed", "despised", "regretted")
NAMES = ("Anna", "Peter", "Laura", "Mark", "Julia", "David", "Emma", "Paul", "Sarah", "Tom")
NAME_PAIRS = (
    *(("Anna", "Peter"), ("Laura", "Mark"), ("Julia", "David"), ("Emma", "Paul"), ("Sarah", "Tom"), ("Mary", "John")),
    *(("Alice", "George"), ("Susan", "Robert"), ("Helen", "Frank"), ("Linda", "Kevin"), ("Nancy", "Brian")),
    *(("Karen", "Steve"), ("Lucy", "Jack"), ("Rachel", "Daniel"), ("Diana", "Victor"), ("Sophie", "Martin")),
    *(("Carol", "Eric"), ("Jane", "Harry"), ("Olivia", "Oscar"), ("Clara", "Felix")),
)
"""Women's beside men's."""
DEEDS = (
    *(("painted", "paint"), ("cleaned", "clean"), ("repaired", "repair"), ("opened", "open"), ("visited", "visit")),
    *(("moved", "move"), ("closed", "close"), ("checked", "check"), ("washed", "wash"), ("locked", "lock")),
    *(("entered", "enter"), ("decorated", "decorate"), ("inspected", "inspect"), ("described", "describe")),
    *(("watched", "watch"), ("measured", "measure"), ("sketched", "sketch"), ("admired", "admire")),
    *(("searched", "search"), ("guarded", "guard"), ("photographed", "photograph"), ("designed", "design")),
    *(("improved", "improve"), ("lighted", "light")),
)
THINGS = ("house", "kitchen", "window", "door", "office", "bridge", "shop", "station")
PLACES = (
    *("cinema", "gallery", "bakery", "library", "theatre", "park", "bar", "hall", "zoo", "pool", "shop", "club"),
    *("castle", "beach", "harbour", "studio"),
)
INLAND = tuple(place for place in PLACES if place not in ("beach", "harbour"))
JOBS = (
    *("doctor", "teacher", "lawyer", "writer", "singer", "painter", "manager", "student", "scientist", "cook"),
    *("driver", "journalist", "dentist", "librarian", "neighbour", "witness"),
)
GOODS = (
    *("parcel", "document", "laptop", "camera", "contract", "key", "chair", "ticket", "printer", "report", "bicycle"),
    *("desk", "letter", "form", "lamp", "invoice", "book", "tent", "sofa", "piano"),
)
REGISTERS = (
    ("We should be most grateful if you returned the {}.", "Hey guys, just bring back the {}."),
    ("I am writing to enquire about the availability of the {}.", "Hi, wanna know if you still got the {}."),
    ("Please be advised that we have dispatched the {}.", "Yeah so we kinda sent off the {}."),
    ("It is hereby confirmed that we have received the {}.", "Yep, thanks mate, we got the {}."),
)
"""Formal beside informal; both end alike."""
PEOPLE_OF_THE_SEA = ("sailor", "captain", "diver", "pirate")
PEOPLE_OF_THE_MOUNTAINS = ("climber", "shepherd", "skier", "hiker")
AT_SEA = ("reef", "harbour", "lighthouse", "beach")
IN_THE_MOUNTAINS = ("ridge", "glacier", "summit", "cabin")
TIMES = ("At dawn", "At noon", "In the evening", "At midnight", "On Sunday")
WAYS = ("rested beside", "walked along", "looked towards", "returned to")
ACTIONS = (
    *(
        ("reads a book", "lit un livre"),
        ("writes a letter", "écrit une lettre"),
        ("drinks some water", "boit de l'eau"),
    ),
    *(
        ("eats an apple", "mange une pomme"),
        ("sings a song", "chante une chanson"),
        ("draws a horse", "dessine un cheval"),
    ),
    *(
        ("waits for a friend", "attend un ami"),
        ("looks at the sky", "regarde le ciel"),
        ("opens the door", "ouvre la porte"),
    ),
    *(
        ("closes the window", "ferme la fenêtre"),
        ("buys some bread", "achète du pain"),
        ("cuts a rope", "coupe une corde"),
    ),
    *(
        ("looks for a key", "cherche une clé"),
        ("talks with a child", "parle avec un enfant"),
        ("sees a dog", "voit un chien"),
    ),
    *(
        ("sleeps like a cat", "dort comme un chat"),
        ("carries a chair", "porte une chaise"),
        ("sells a hat", "vend un chapeau"),
    ),
    *(("counts the birds", "compte les oiseaux"), ("cleans the table", "nettoie la table")),
)
"""English beside French."""
WHEREABOUTS = (
    *(
        ("in the garden", "dans le jardin"),
        ("in the kitchen", "dans la cuisine"),
        ("near the river", "près de la rivière"),
    ),
    *(
        ("behind the church", "derrière l'église"),
        ("outside the house", "devant la maison"),
        ("under the tree", "sous l'arbre"),
    ),
)
