"""Build src/gopro/assets/emoji: one sprite sheet per drawing style, and emoji.json with names, tags and groups.

    python -m tools.build_emoji FOLDER

FOLDER holds the npm packages listed in this file, as `npm pack` names them; missing ones are downloaded into it.
The same packages and the same versions of resvg_py and Pillow give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import resvg_py
from PIL import Image

ASSETS = Path(__file__).parents[1] / "src" / "gopro" / "assets" / "emoji"
SIZE = 64  # pixels per side of a drawing
COLUMNS = 40
QUALITY = 90  # of the WebP sheets; 100 keeps every pixel
# style -> npm package, its version, the sha256 of its tarball
DRAWINGS = {
    "noto": (
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "twemoji": (
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "openmoji": (
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
    "fluent": (
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "high-contrast": (
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
}
NAMES = (
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)


def pack(folder: Path, package: str, version: str, sha256: str) -> Path:
    """Return the tarball of an npm package in `folder`. Download it if missing, and exit if its checksum is wrong."""
    tarball = folder / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not tarball.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    if (actual := hashlib.sha256(tarball.read_bytes()).hexdigest()) != sha256:
        raise SystemExit(f"{tarball} has sha256 {actual} instead of {sha256}: delete it and run this again")
    return tarball


def read_json(tarball: Path, member: str) -> object:
    """Read a JSON file of an npm package."""
    with tarfile.open(tarball) as archive:
        content = archive.extractfile(f"package/{member}")
        if content is None:
            raise SystemExit(f"{tarball} has no member package/{member}")
        return json.load(content)


def plain(hexcode: str) -> str:
    """Remove variation selectors from a hexcode, so that hexcodes of different packages compare equal."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def draw(icons: dict, name: str) -> Image.Image:
    """Draw one icon of an Iconify set as an RGBA image of SIZE x SIZE pixels."""
    icon = icons["icons"].get(name)
    if icon is None:  # an alias; those used here draw their parent unchanged
        alias = icons["aliases"][name]
        if set(alias) - {"parent", "hidden"}:
            raise SystemExit(
                f"{icons['prefix']}/{name} is an alias that transforms its parent, which is not implemented"
            )
        return draw(icons, alias["parent"])
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the npm packages")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    names = pack(folder, *NAMES)
    tarballs = {style: pack(folder, *package) for style, package in DRAWINGS.items()}
    chars = {
        style: {plain(code): icon for code, icon in read_json(tarball, "chars.json").items()}
        for style, tarball in tarballs.items()
    }
    messages = read_json(names, "en/messages.json")
    groups = {entry["order"]: entry["key"] for entry in messages["groups"]}
    subgroups = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    # The top level of emojibase's list has no skin tone variants. Single letters have no group and are skipped.
    emoji = [
        entry
        for entry in read_json(names, "en/data.json")
        if "group" in entry and all(plain(entry["hexcode"]) in known for known in chars.values())
    ]
    emoji.sort(key=lambda entry: entry["order"])
    ASSETS.mkdir(parents=True, exist_ok=True)
    for style, tarball in tarballs.items():
        icons = read_json(tarball, "icons.json")
        rows = -(-len(emoji) // COLUMNS)
        sheet = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
        for place, entry in enumerate(emoji):
            drawing = draw(icons, chars[style][plain(entry["hexcode"])])
            sheet.paste(drawing, (place % COLUMNS * SIZE, place // COLUMNS * SIZE))
        path = ASSETS / f"{style}.webp"
        sheet.save(path, lossless=QUALITY == 100, quality=QUALITY, alpha_quality=100, method=6)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    record = {
        "packages": {
            style: {"package": package, "version": version, "sha256": sha256}
            for style, (package, version, sha256) in {**DRAWINGS, "names": NAMES}.items()
        },
        "size": SIZE,
        "columns": COLUMNS,
        "emoji": [
            {
                "hexcode": entry["hexcode"],
                "name": entry["label"],
                "tags": entry.get("tags", []),
                "group": groups[entry["group"]],
                "subgroup": subgroups[entry["subgroup"]],
            }
            for entry in emoji
        ],
    }
    lines = json.dumps(record, ensure_ascii=False, indent=None).replace('{"hexcode"', '\n{"hexcode"')
    (ASSETS / "emoji.json").write_text(lines + "\n", encoding="utf-8")
    print(f"{len(emoji)} emoji in {len(DRAWINGS)} styles")


if __name__ == "__main__":
    main()
