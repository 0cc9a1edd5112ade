"""Translation both ways with the language named: sentence pairs and parallel children's stories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

from kilonova.data.instruct.conversation import Row, exchange
from kilonova.data.instruct.records import TrainingRecords

LARGE_LANGUAGES = (
    "deu", "fra", "spa", "ita", "por", "nld", "rus", "jpn", "cmn", "swe", "dan", "pol", "ces", "ron", "tur", "ukr",
    "ind", "cat", "fin", "hun", "epo", "nob", "ell", "ara", "hin", "kor", "vie", "heb",
)  # fmt: skip
LANGUAGE_NAMES = {
    "afr": "Afrikaans", "amh": "Amharic", "ang": "Old English", "ara": "Arabic", "arq": "Algerian Arabic",
    "arz": "Egyptian Arabic", "ast": "Asturian", "awa": "Awadhi", "aze": "Azerbaijani", "bel": "Belarusian",
    "ben": "Bengali", "ber": "Berber", "bos": "Bosnian", "bre": "Breton", "bul": "Bulgarian", "cat": "Catalan",
    "cbk": "Chavacano", "ceb": "Cebuano", "ces": "Czech", "cha": "Chamorro", "cmn": "Chinese", "cor": "Cornish",
    "csb": "Kashubian", "cym": "Welsh", "dan": "Danish", "deu": "German", "dsb": "Lower Sorbian",
    "dtp": "Central Dusun", "ell": "Greek", "epo": "Esperanto", "est": "Estonian", "eus": "Basque", "fao": "Faroese",
    "fin": "Finnish", "fra": "French", "fry": "Frisian", "gla": "Scottish Gaelic", "gle": "Irish", "glg": "Galician",
    "gsw": "Swiss German", "heb": "Hebrew", "hin": "Hindi", "hrv": "Croatian", "hsb": "Upper Sorbian",
    "hun": "Hungarian", "hye": "Armenian", "ido": "Ido", "ile": "Interlingue", "ina": "Interlingua",
    "ind": "Indonesian", "isl": "Icelandic", "ita": "Italian", "jav": "Javanese", "jpn": "Japanese", "kab": "Kabyle",
    "kat": "Georgian", "kaz": "Kazakh", "khm": "Khmer", "kor": "Korean", "kur": "Kurdish", "kzj": "Coastal Kadazan",
    "lat": "Latin", "lfn": "Lingua Franca Nova", "lit": "Lithuanian", "lvs": "Latvian", "mal": "Malayalam",
    "mar": "Marathi", "max": "North Moluccan Malay", "mhr": "Mari", "mkd": "Macedonian", "mon": "Mongolian",
    "nds": "Low German", "nld": "Dutch", "nno": "Norwegian Nynorsk", "nob": "Norwegian", "nov": "Novial",
    "oci": "Occitan", "orv": "Old East Slavic", "pam": "Kapampangan", "pes": "Persian", "pms": "Piedmontese",
    "pol": "Polish", "por": "Portuguese", "ron": "Romanian", "rus": "Russian", "slk": "Slovak", "slv": "Slovenian",
    "spa": "Spanish", "sqi": "Albanian", "srp": "Serbian", "swe": "Swedish", "swg": "Swabian", "swh": "Swahili",
    "tam": "Tamil", "tat": "Tatar", "tel": "Telugu", "tgl": "Tagalog", "tha": "Thai", "tuk": "Turkmen",
    "tur": "Turkish", "tzl": "Talossan", "uig": "Uyghur", "ukr": "Ukrainian", "urd": "Urdu", "uzb": "Uzbek",
    "vie": "Vietnamese", "war": "Waray", "wuu": "Wu Chinese", "xho": "Xhosa", "yid": "Yiddish", "yue": "Cantonese",
    "zsm": "Malay",
}  # fmt: skip
STORY_LANGUAGES = {
    "fr": "French", "pt": "Portuguese", "af": "Afrikaans", "sw": "Swahili", "zu": "Zulu", "xh": "Xhosa",
    "hi": "Hindi", "yo": "Yoruba", "rw": "Kinyarwanda", "tn": "Setswana", "st": "Sotho", "ha": "Hausa", "de": "German",
}  # fmt: skip
TRANSLATION_TEMPLATES = (
    "Translate to {target}: {text}",
    "Translate into {target}: {text}",
    "Translate this into {target}:\n{text}",
    "Translate from {origin} to {target}: {text}",
    "Translate the following {origin} sentence into {target}.\n\n{text}",
    "What is this in {target}?\n{text}",
    'How do you say "{text}" in {target}?',
    "Say this in {target}: {text}",
    "{text}\n\nTranslate the text above into {target}.",
    "{text}\nTranslate to {target}.",
    "Give the {target} translation of: {text}",
    "Put this {origin} text into {target}: {text}",
    "{origin}: {text}\n{target}:",
    "Please translate to {target}.\n\n{text}",
    "I need this in {target}: {text}",
    "Write in {target}: {text}",
)
DETECTION_TEMPLATES = (
    "Which language is this? {text}",
    "What language is the following text written in?\n{text}",
    "Name the language of this sentence: {text}",
    "Identify the language: {text}",
    "{text}\n\nIn which language is this written?",
    "Tell me the language of this text.\n\n{text}",
)


def translation(source: str, text: str, answer: str, origin: str, target: str, rng: Random) -> Row:
    """One translation request, sometimes with the direction in the system prompt."""
    if rng.random() < 0.06:
        system = rng.choice((
            f"You translate everything the user writes into {target}.",
            f"Translate the user's messages from {origin} into {target}.",
            f"You are a translator. Reply only with the {target} translation.",
        ))  # fmt: skip
        return exchange(source, "translation", text, answer, system=system)
    prompt = rng.choice(TRANSLATION_TEMPLATES).format(origin=origin, target=target, text=text)
    return exchange(source, "translation", prompt, answer)


def tatoeba(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Sentence pairs: the large languages both ways, the others mostly into English; a few ask for the language."""
    rows: list[tuple[str, str, str, str]] = []
    for row in records.rows("sft/tatoeba_pairs_train"):
        language, text, english = row["lang"], row["text"].strip(), row["english"].strip()
        if not text or not english or len(text) > 400:
            continue
        name = LANGUAGE_NAMES[language]
        large = language in LARGE_LANGUAGES
        if large or rng.random() < 0.2:
            rows.append((text, english, name, "English"))
        if large or rng.random() < 0.08:
            rows.append((english, text, "English", name))
        if rng.random() < (0.06 if large else 0.02):
            rows.append((text, "", name, ""))
    rng.shuffle(rows)
    for text, answer, origin, target in rows:
        if target:
            yield translation("tatoeba", text, answer, origin, target, rng)
        else:
            prompt = rng.choice(DETECTION_TEMPLATES).format(text=text)
            yield exchange("tatoeba", "language_identification", prompt, origin)


def parallel_stories(records: TrainingRecords, rng: Random) -> Iterator[Row]:
    """Pages of children's stories that exist in English and another language with the same number of pages."""
    stories: dict[str, dict[str, dict]] = defaultdict(dict)
    for row in records.rows("text/children_stories_multilingual"):
        if "asp-source" in row["source"] and row["lang"] in {"en", *STORY_LANGUAGES}:
            stories[row["story_id"]].setdefault(row["lang"], row)
    pairs: list[tuple[str, str, str]] = []
    for versions in stories.values():
        english = versions.get("en")
        for language, other in versions.items():
            if english is None or language == "en" or len(other["pages"]) != len(english["pages"]):
                continue
            name = STORY_LANGUAGES[language]
            pairs.append((english["title"], other["title"], name))
            pairs.extend((a, b, name) for a, b in zip(english["pages"], other["pages"], strict=True))
    rng.shuffle(pairs)
    for english_text, other_text, name in pairs:
        source, target = " ".join(english_text.split()), " ".join(other_text.split())
        if not 8 <= len(source) <= 350 or not 0.5 <= len(target) / len(source) <= 2.2:
            continue
        if rng.random() < 0.5:
            yield translation("children_stories_parallel", source, target, "English", name, rng)
        else:
            yield translation("children_stories_parallel", target, source, name, "English", rng)
