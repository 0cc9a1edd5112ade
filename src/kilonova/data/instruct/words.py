"""Word tables that the program tasks draw from."""

from __future__ import annotations


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


FIRST_NAMES = split_words(
    """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Mia Noah Olivia Paul Rosa Sam Tom Uma
    Vera Will Zoe Amir Aisha Bilal Chen Diego Elena Fatima Giulia Hans Ivan Jamal Keiko Lars Maria Nadia
    Omar Priya Ravi Sofia Tariq Ursula Yuki Zara Adam Bella Carlos Diana Ethan Fiona George Hannah Isaac
    Julia Kevin Laura Marco Nina Oscar Peter Quinn Rachel Simon Tina Victor Wendy Alice Bruno Chloe Daniel
    Eva Frank Gina Hugo Ines Jonas Karim Lucy Max Nora Oliver Paula Rita Stefan Tara Vincent Maya Arthur
    Helen Louis Martin Sarah Thomas Amina Kofi Wanjiru Thabo Ling Mei Akira Hiro Pablo Lucia Pierre Camille
    Ahmed Layla Sven Ingrid Olga Dmitri"""
)
SURNAMES = split_words(
    """Smith Jones Brown Taylor Wilson Evans Walker Wright Green Hall Wood Clarke Hughes Lewis Young Allen King
    Scott Baker Adams Carter Mitchell Parker Collins Cook Morgan Bell Murphy Bailey Cooper Richardson Cox
    Howard Ward Garcia Lopez Silva Costa Rossi Bianchi Muller Weber Schmidt Dubois Moreau Larsen Berg Novak
    Kowalski Ivanova Tanaka Sato Kim Lee Wang Zhang Patel Singh Khan Mensah Okafor"""
)
CITIES = (
    *split_words(
        """London Paris Berlin Madrid Rome Lisbon Vienna Prague Warsaw Athens Dublin Oslo Stockholm Helsinki
        Copenhagen Brussels Amsterdam Zurich Munich Hamburg Milan Naples Barcelona Porto Lyon Geneva Budapest
        Istanbul Cairo Nairobi Sydney Lagos Accra Tunis Dakar Delhi Mumbai Tokyo Osaka Kyoto Seoul Beijing
        Shanghai Bangkok Hanoi Jakarta Manila Melbourne Auckland Toronto Montreal Vancouver Chicago Boston
        Seattle Denver Dallas Miami Lima Bogota Santiago"""
    ),
    "Cape Town",
    "Buenos Aires",
    "Mexico City",
    "New York",
    "San Francisco",
    "Los Angeles",
    "Hong Kong",
)
COLOURS = split_words(
    "red blue green yellow orange purple pink brown black white grey turquoise silver gold violet crimson"
)
ANIMALS = split_words(
    """cat dog horse cow sheep goat pig rabbit mouse lion tiger bear wolf fox elephant giraffe zebra monkey
    camel frog snake turtle eagle owl parrot duck goose hen shark whale dolphin bee ant spider butterfly
    penguin kangaroo deer hedgehog otter"""
)
FRUITS = split_words(
    "apple banana cherry grape lemon mango orange peach pear plum kiwi melon papaya pineapple fig apricot lime"
)
VEGETABLES = split_words(
    "carrot potato onion tomato cabbage spinach pepper cucumber bean pea garlic pumpkin lettuce radish leek"
)
OBJECTS = split_words(
    """table chair lamp book pen cup plate bottle key phone bag box clock window door mirror bicycle car train
    boat ball hat coat shoe shirt umbrella camera guitar piano drum knife spoon basket ladder hammer map
    letter ring candle blanket pillow"""
)
VEHICLES = split_words("car bus train boat bicycle truck tram ship plane scooter taxi van")
FURNITURE = split_words("table chair sofa bed desk shelf wardrobe stool bench cupboard")
CLOTHES = split_words("hat coat shirt scarf dress skirt jacket sock glove sweater belt boot")
INSTRUMENTS = split_words("piano guitar violin drum flute trumpet cello harp clarinet")
JOBS = split_words(
    """teacher doctor nurse farmer baker pilot engineer lawyer painter singer writer chef driver carpenter
    plumber dentist gardener journalist scientist sailor tailor waiter librarian photographer electrician"""
)
HOBBIES = (
    *split_words(
        "swimming reading painting cooking hiking dancing singing fishing gardening cycling running chess photography "
        "knitting football tennis basketball yoga"
    ),
    "playing the guitar",
    "bird watching",
    "playing the piano",
    "baking bread",
)
FOODS = (
    *split_words(
        "pizza pasta soup rice bread cheese salad curry sushi noodles chocolate cake pancakes dumplings tacos lasagne "
        "yoghurt honey"
    ),
    "ice cream",
    "fried eggs",
    "apple pie",
    "tomato soup",
)
CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "fruit": FRUITS,
    "vegetable": VEGETABLES,
    "colour": COLOURS,
    "job": JOBS,
    "vehicle": VEHICLES,
    "furniture": FURNITURE,
    "clothing": CLOTHES,
    "musical instrument": INSTRUMENTS,
    "city": tuple(CITIES),
    "first name": FIRST_NAMES,
}
MONTHS = split_words("January February March April May June July August September October November December")
WEEKDAYS = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
ADJECTIVES = split_words(
    """big small old new young happy sad quick slow bright dark warm cold loud quiet clean dirty heavy light
    soft hard strange kind brave clever tired hungry beautiful rich poor"""
)
NOUNS = split_words(
    """house river mountain garden school market forest village street bridge island harbour castle kitchen
    office hospital station library museum theatre farm field lake beach road tower church park shop factory"""
)
ANTONYMS = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "young"), ("happy", "sad"), ("light", "dark"),
    ("open", "closed"), ("early", "late"), ("full", "empty"), ("rich", "poor"), ("strong", "weak"), ("hard", "soft"),
    ("high", "low"), ("wet", "dry"), ("clean", "dirty"), ("loud", "quiet"), ("near", "far"), ("thick", "thin"),
    ("wide", "narrow"), ("long", "short"), ("cheap", "expensive"), ("safe", "dangerous"), ("easy", "difficult"),
    ("true", "false"), ("good", "bad"), ("first", "last"), ("up", "down"), ("left", "right"), ("day", "night"),
    ("summer", "winter"), ("always", "never"), ("inside", "outside"), ("begin", "end"), ("buy", "sell"),
    ("win", "lose"), ("give", "take"), ("love", "hate"), ("remember", "forget"), ("push", "pull"), ("arrive", "leave"),
)  # fmt: skip
DOMAINS = ("example.com", "mail.org", "post.net", "shop.io", "school.edu", "work.co", "letters.info")
PAST_VERBS = (
    ("bought", "buy"), ("found", "find"), ("lost", "lose"), ("painted", "paint"), ("sold", "sell"),
    ("carried", "carry"), ("cleaned", "clean"), ("repaired", "repair"), ("borrowed", "borrow"), ("saw", "see"),
    ("forgot", "forget"), ("hid", "hide"), ("broke", "break"), ("washed", "wash"), ("moved", "move"),
)  # fmt: skip
NUMBER_WORDS = split_words(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty"""
)
IRREGULAR_PLURALS = {
    "sheep": "sheep", "mouse": "mice", "wolf": "wolves", "goose": "geese", "deer": "deer", "knife": "knives",
    "shark": "sharks",
    "mango": "mangoes", "potato": "potatoes", "tomato": "tomatoes", "scarf": "scarves", "shelf": "shelves",
}  # fmt: skip


def plural_of(noun: str) -> str:
    """The plural of a noun of these tables."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
