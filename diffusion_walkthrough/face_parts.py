"""What the faces are made of: parts as rows of characters, and the palette. Look, and edit.

Each character of a part is one pixel: ``.`` lets what lies below show through, every other one is
a colour of :data:`COLOURS` or :data:`INKS`. Parts of one sheet stand side by side under their
names. How they are laid over each other, drawn and read back stands in ``faces.py``.
"""

from __future__ import annotations

#: What lies below the parts of every face: the head with ears, cheeks and nose, neck and shoulders.
FIGURE = """
................
................
................
....ssssssss....
...ssssssssss...
...ssssssssss...
...ssssssssss...
..ssssssssssss..
..SssssssssssS..
...srssSSssrs...
...ssssssssss...
....ssssssss....
.....ssssss.....
.....cSSSSc.....
..ccccSSSScccc..
.cccccccccccccc.
"""

#: Which layers may draw where: h hair and hats, e eyes and glasses, m mouth and beard, c clothes.
ZONES = """
hhhhhhhhhhhhhhhh
hhhhhhhhhhhhhhhh
hhhhhhhhhhhhhhhh
hhhhhhhhhhhhhhhh
hhhhhhhhhhhhhhhh
hhhhhhhhhhhhhhhh
hhheeeeeeeeeehhh
hhheeeeeeeeeehhh
hhheeeeeeeeeehhh
hhheeeemmeeeehhh
hhhmmmmmmmmmmhhh
hhhhmmmmmmmmhhhh
hhhhhmmmmmmhhhhh
hhhhhcccccchhhhh
hhcccccccccccchh
hcccccccccccccch
"""

#: The zone of each layer, and the row of the face in which its parts begin. The upper layer of two
#: in a zone comes second.
LAYERS = {
    "hair": ("h", 0),
    "hat": ("h", 0),
    "eyes": ("e", 6),
    "glasses": ("e", 6),
    "mouth": ("m", 9),
    "beard": ("m", 9),
    "clothes": ("c", 13),
}


def _sheet(text: str) -> dict[str, tuple[str, ...]]:
    """The parts of a sheet: blocks in which they stand side by side under their names."""
    parts = {}
    for block in text.strip("\n").split("\n\n"):
        names, *rows = block.split("\n")
        for left in range(0, len(names), 17):
            part = slice(left, left + 16)
            parts[names[part].strip()] = tuple(row[part] for row in rows)
    return parts


#: The parts of each layer by their names.
PARTS = {
    "hair": _sheet("""
bald             buzz cut         short            side parting     fringe
................ ................ ................ ................ ................
................ ................ ................ ......hhhhh..... ................
................ ....HHHHHHHH.... ....hhhhhhhh.... ...hhhhhhhhhhh.. ....hhhhhhhh....
................ ...HHHHHHHHHH... ...hhhhhhhhhhh.. ..hhHhhhhhhhhh.. ..hhhhhhhhhhhh..
................ ...HH......HH... ..hhhhhhhhhhhh.. ..hhHhhhhhhhhh.. ..hhhhhhhhhhhh..
................ ................ ..hHH......HHh.. ..hH...HHHhhhh.. ..hhHhhHhhHhhh..
................ ................ ..H..........H.. ..H..........H.. ..H..........H..
................ ................ ..H..........H.. ..H..........H.. ..H..........H..

bob              long             waves            curls            afro
................ ................ ................ ................ ...hhhhhhhhhh...
....hhhhhhhh.... ....hhhhhhhh.... .....hhhhhh..... ...hhh.hh.hhh... .hhhhhhhhhhhhhh.
..hhhhhhhhhhhh.. ..hhhhhhhhhhhh.. ..hhhhhhhhhhhh.. .hhhhhhhhhhhhhh. hhhhhhhhhhhhhhhh
..hhhhhhhhhhhh.. .hhhhhHHhhhhhh.. .hhhhhhhHhhhhhh. .hhhhhhhhhhhhhh. hhhhhhhhhhhhhhhh
.hhhhhhhhhhhhhh. .hhhhH..Hhhhhhh. .hhhhhHH.HHhhhh. hhhhhHhhhhHhhhhh hhhhhhhhhhhhhhhh
.hhhHHHHHHHHhhh. .hhhH....Hhhhhh. hhhhHH.....HHhhh hhhHH.HHHH.HHhhh hhhhHHHHHHHHhhhh
.hh..........hh. .hh..........hh. hhh..........hhh .hh..........hh. hhh..........hhh
.hh..........hh. .hh..........hh. .hh..........hh. hhh..........hhh hhh..........hhh
.hh..........hh. .hh..........hh. .hh..........hh. .hh..........hh. hhh..........hhh
.hh..........hh. .hh..........hh. hhh..........hhh ..h..........h.. .hh..........hh.
.HH..........HH. .hh..........hh. hhh..........hhh ................ ................
................ .hhh........hhh. .hhh........hhh. ................ ................
................ .hhhh......hhhh. hhhhh......hhhhh ................ ................
................ .HHH........HHH. hhhh........hhhh ................ ................
................ .H............H. HH............HH ................ ................

bun              space buns       ponytail         pigtails         mohawk
......hhhh...... ..hh........hh.. ................ ................ ......hhhh......
......hhhh...... .hhhh......hhhh. .....hhhhhh..... ....hhhhhhhh.... .....hhhhhh.....
....hhHHHHhh.... .HhhHhhhhhhHhhH. ...hhhhhhhhhhh.. ...hhhhHHhhhh... ......hhhh......
...hhhhhhhhhh... ..hhhhhHHhhhhh.. ..hhhhhhhhhhhhh. ..hhhhH..Hhhhh.. ......hhhh......
..hhhhhhhhhhhh.. ..hhhH....Hhhh.. ..hhhhhhhhhhHHhh ..hhH......Hhh.. ...H..hhhh..H...
..hHH......HHh.. ..hH........Hh.. ..hHHHH...HHHHhh ..hH........Hh.. ...H..HHHH..H...
..H..........H.. ..H..........H.. ..H..........Hhh .hh..........hh. ................
..H..........H.. ..H..........H.. .............Hhh hhh..........hhh ................
................ ................ ..............hh hhh..........hhh ................
................ ................ ..............hh hhh..........hhh ................
................ ................ ..............hh .hh..........hh. ................
................ ................ ..............H. .HH..........HH. ................

spikes           quiff            side sweep       professor        locs
...h...hh...h... .....hhhhhhhh... ................ ................ ................
...hh.hhhh.hh... ....hhhhhhhhhh.. ...hhhhhhhhhh... ................ ....hhhhhhhh....
.hhhhhhhhhhhhhh. ...hhhhhhhhhhh.. ..hhhhhhhhhhhhh. ................ ..hhHhhHhhHhhh..
..hhhhhhhhhhhh.. ..hhHHHHHHHHHh.. .hhhhhhhhhhhhhh. ................ .hhHhhHhhHhhHhh.
hhhhhhhhhhhhhhhh ..hHH......HHh.. .hhhhhhhhhhhhhh. ..hh........hh.. .hhHhhHhhHhhHhh.
..hHHhHHHHhHHh.. ..H..........H.. .hhhhhhhhHHHHHH. .hh..........hh. .hHhH......HhHh.
..H..........H.. ................ .hh..........HH. .hh..........hh. .hH..........Hh.
..H..........H.. ................ .hh............. .hh..........hh. .hH..........Hh.
................ ................ .hh............. .H............H. .hH..........Hh.
................ ................ .hh............. ................ .hH..........Hh.
................ ................ .hh............. ................ .hH..........Hh.
................ ................ .hhh............ ................ .hH..........Hh.
................ ................ ..HHH........... ................ .hH..........Hh.
"""),
    "hat": _sheet("""
none             cap              beanie           crown            party hat
................ bbbbbbbbbbbbbbbb bbbbbbbwwbbbbbbb bbbbbbbbbbbbbbbb bbbbbbbwwbbbbbbb
................ bbbbbaaaaaabbbbb bbbbbaaaaaabbbbb bbbgbbbggbbbgbbb bbbbbbbaabbbbbbb
................ bbbaaaaaaaaaabbb bbbaaaaaaaaaabbb bbbggbggggbggbbb bbbbbbaaaabbbbbb
................ bbaaaaaaaaaaaabb bbaaaaaaaaaaaabb bbbgggggggggabbb bbbbbbAAAAbbbbbb
................ bbaaaaaAAAAAAAAA bbAAAAAAAAAAAAbb bbbgaaggggaagbbb bbbbbaaaaaabbbbb
................ ................ bbAAAAAAAAAAAAbb bbbggggggggggbbb ................

bow              flower           headphones       cat ears         sun hat
................ ................ ................ ...a........a... bbbbbbbbbbbbbbbb
.........aa..aa. ...........aa... ....AAAAAAAA.... ..aAa......aAa.. bbbbbbaaaabbbbbb
.........aaAAaa. .........aaggaa. ..AA........AA.. ..aAAa....aAAa.. bbbbaaaaaaaabbbb
.........aaAAaa. .........aaggaa. ..A..........A.. ..aaaa....aaaa.. bbbbAAAAAAAAbbbb
.........aa..aa. ...........aa... ..A..........A.. ................ baaaaaaaaaaaaaab
................ ................ .AA..........AA. ................ aaaaaaaaaaaaaaaa
................ ................ .aA..........Aa. ................ ................
................ ................ aaA..........Aaa ................ ................
................ ................ aaA..........Aaa ................ ................
................ ................ .aA..........Aa. ................ ................

wizard hat       viking helmet    headband
bbbbbbbbbaabbbbb wwbbbbbbbbbbbbww ................
bbbbbbbaaaabbbbb wwbbbaaaaaabbbww ................
bbbbbbaaaabbbbbb bwwaaaaAAaaaawwb ................
bbbbbaaaaaabbbbb bbaaaaaAAaaaaabb ..aaaaaaaaaaaa..
bbbbAAAAAAAAbbbb bbAAAAAAAAAAAAbb ..AAAAAAAAAAAA..
aaaaaaaaaaaaaaaa ................ ................
"""),
    "eyes": _sheet("""
round            big              happy            asleep           wink
................ ....ww....ww.... ................ ................ ................
....we....ew.... ....we....ew.... ....kk....kk.... ................ ....we....kk....
....we....ew.... ....we....ew.... ...k..k..k..k... ....kk....kk.... ....we...k..k...

lashes           glance           bushy brows
...k........k... ................ ....kkk..kkk....
....kk....kk.... ....ew....ew.... ....we....ew....
....we....ew.... ....ew....ew.... ....we....ew....
"""),
    "glasses": _sheet("""
none             round            square           sunglasses       eye patch
................ ....ff....ff.... ...pppp..pppp... ...ssssssssss... ...kkk..........
................ ...f..ffff..f... ...p..pppp..p... ...kkkkkkkkkk... ...kkkk.........
................ ...f..f..f..f... ...p..p..p..p... ...klkk..klkk... ...kkkk.........
................ ....ff....ff.... ...pppp..pppp... ...kkkk..kkkk... ....kk..........
"""),
    "mouth": _sheet("""
smile            grin             laugh            oh
................ ................ ................ ................
.....m....m..... .....mmmmmm..... .....mmmmmm..... .......mm.......
......mmmm...... ......wwww...... ......tttt...... .......mm.......

neutral          frown            tongue           lipstick
................ ................ ................ ................
......mmmm...... ......mmmm...... ......mmmm...... ......tttt......
................ .....mm..mm..... .......ttt...... .......tt.......
"""),
    "beard": _sheet("""
none             moustache        chin beard       full beard
................ ................ ................ ................
................ ....hhhhhhhh.... ................ ...hh......hh...
................ ....h......h.... ....h......h.... ....hh....hh....
................ ................ .....hhhhhh..... .....hhhhhh.....
"""),
    "clothes": _sheet("""
T-shirt          stripes          collar           tie              scarf
.....cSSSSc..... .....cSSSSc..... .....CSSSSC..... .....CSSSSC..... .....CCCCCC.....
..ccccSSSScccc.. ..CCCCSSSSCCCC.. ..ccCCCSSCCCcc.. ..ccccCCCCcccc.. ..cccCCCCCCccc..
.cccccccccccccc. .cccccccccccccc. .cccccCCCCccccc. .ccccccCCcccccc. .ccccccccCCcccc.

dungarees        V-neck           top              polo neck        hoodie
.....cSSSSc..... .....cSSSSc..... .....sSSSSs..... .....cccccc..... .....CSSSSC.....
..CccCccccCccC.. ..ccccCSSCcccc.. ..ssscSSSScsss.. ..cccccccccccc.. ..ccCCcSScCCcc..
.CCCCccccccCCCC. .ccccccCCcccccc. .sscccccccccsss. .cccccccccccccc. .ccccCccccCcccc.
"""),
}

#: Each attribute that is a colour: its characters, and for each value what they stand for.
COLOURS = {
    "background": (
        "b",
        {
            "mint": "#bfe8d4",
            "sky": "#b5dcf6",
            "lilac": "#d2c6f3",
            "rose": "#f9cbd6",
            "peach": "#ffd4b4",
            "butter": "#f6efac",
        },
    ),
    "skin": (
        "sSrm",
        {
            "porcelain": "#fbd8c6 #e6b49d #ffb09f #b0303e",
            "peach": "#f5c39e #dd9a76 #f59a82 #a42c38",
            "honey": "#e2a876 #c48454 #df8660 #962430",
            "tan": "#c4895c #a26940 #c0694c #7d1a28",
            "brown": "#ab7049 #865334 #aa513f #520f1d",
            "deep": "#603d2e #452a1f #763a33 #240811",
        },
    ),
    "hair_colour": (
        "hH",
        {
            "black": "#28232e #15111a",
            "brown": "#865431 #653d22",
            "auburn": "#a2341e #7b2413",
            "ginger": "#e4762c #bd581f",
            "blond": "#f9d350 #dbaa34",
            "silver": "#a3aaba #7f879a",
            "pink": "#ee86b1 #cd5f90",
            "blue": "#4a98d3 #3476ad",
            "green": "#62b67d #449460",
        },
    ),
    "eye_colour": (
        "e",
        {"brown": "#65301a", "blue": "#2f74d6", "green": "#2b9450", "amber": "#cf8420"},
    ),
    "hat_colour": (
        "aA",
        {
            "red": "#de4a45 #b23237",
            "navy": "#38509c #273a78",
            "forest": "#2c7a52 #1e5a3c",
            "mustard": "#e2a321 #b97f14",
            "purple": "#8c5bc4 #69409a",
            "white": "#faf6f0 #d3cbd0",
        },
    ),
    "clothes_colour": (
        "cC",
        {
            "red": "#d64d40 #fdeed9",
            "orange": "#ee8d42 #fae1b0",
            "yellow": "#f3c44a #8d5a2e",
            "green": "#419965 #d3eec7",
            "teal": "#34a0a8 #f1f6da",
            "navy": "#3a4b80 #f3a89f",
            "violet": "#7f62b0 #fecfe1",
            "white": "#f9f5ed #5d90cc",
        },
    ),
}

#: The colours that are always the same: white, black, tongue, gold, frames and a glint.
INKS = {
    "w": "#ffffff",
    "k": "#221e2a",
    "t": "#ff5c86",
    "g": "#f6b632",
    "f": "#3c3950",
    "p": "#c23350",
    "l": "#7d88aa",
}
