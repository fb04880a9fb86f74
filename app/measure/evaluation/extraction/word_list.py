"""Plain nouns and adjectives, and the keys made of one of each."""

from __future__ import annotations

from random import Random

NOUNS = tuple(
    """
    anchor apple apron arrow axe ball banjo barn barrel basket bead bell bench blanket boat book boot bottle
    bowl box bracelet branch bread brick bridge broom brush bucket button cable cake camera candle canoe cart castle
    chain chair cheese chest chimney clock cloud coat coin comb compass cork cottage crown cup curtain cushion desk dish
    door dragon drum eagle engine feather fence flag flask flower flute forest fork fountain fox garden gate glove
    goat hammer harp hat hedge helmet horn house island jacket jar kettle key kite knife ladder lake lamp lantern
    leaf lemon letter mirror mountain nail needle nest oven paddle pebble pencil piano pillow pipe plate pocket pond
    pumpkin ribbon river road rocket roof rope saddle sail scarf shell ship shovel spoon stove table tent tower train
    trumpet tunnel turtle umbrella valley violin wagon wheel whistle window
    """.split()
)
ADJECTIVES = tuple(
    """
    amber ancient awake azure bold brave bright broken calm clever coral crimson crooked damp dusty eager early
    emerald faded fancy fierce frozen gentle giant golden grand happy hidden hollow humble ivory jolly little lonely
    lucky mellow merry mighty misty modern narrow noble pale patient plain polite proud purple quick quiet rapid
    rusty sandy scarlet secret shiny silent silver simple sleepy smooth sturdy sunny tall tender tiny velvet violet wild
    windy wooden yellow young
    """.split()
)


def choose_keys(random: Random, count: int) -> list[str]:
    """Different keys such as "amber-lantern", no word of which is in two of them."""
    return [
        f"{adjective}-{noun}"
        for adjective, noun in zip(random.sample(ADJECTIVES, count), random.sample(NOUNS, count), strict=True)
    ]
