"""Texts that tokenizers are compared on: scripts, signs, and what breaks normalization."""

# ruff: noqa: RUF001 - characters that look like others are the point

import itertools
import random

_SENTENCES = (
    "The quick brown fox jumps over the lazy dog; doesn't it? Yes, it's done, and they've seen.",
    "Übung macht den Meister, sagt die Großmutter auf der Straße.",
    "El niño comió una manzana en el jardín. ¿Dónde estás? ¡Aquí!",
    "L'été dernier, nous avons mangé des crêpes à l'œuf chez « Hervé ».",
    "Żółć, gęś i jaźń – polskie znaki diakrytyczne.",
    "Kdo uteče, vyhraje: příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Türkçede İ ile ı farklı harflerdir: İstanbul, ılık, Iğdır.",
    "Ọjọ́ dára, ẹ kú àárọ̀, báwo ni ẹ̀yin ṣe wà?",
    "Tiếng Việt có nhiều dấu: Nguyễn, Đặng, những điều ấy.",
    "Привет, как дела? Ёлка стоит в углу; съешь ещё этих мягких булок.",
    "Україна має свою абетку: її, єдність, ґанок.",
    "Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο· ναι;",
    "Արագ աղվեսը ցատկում է։ Ի՞նչ կա։",
    "სწრაფი მელა ახტება ზარმაც ძაღლს.",
    "השועל המהיר קופץ מעל הכלב העצלן. שָׁלוֹם עֲלֵיכֶם",
    "الثعلب السريع يقفز فوق الكلب الكسول. السَّلَامُ عَلَيْكُمْ ۱۲۳ ١٢٣",
    "تیز لومڑی کاہل کتے پر چھلانگ لگاتی ہے۔ می‌خواهم",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। क़लम क़लम",
    "দ্রুত শিয়াল অলস কুকুরের উপর লাফ দেয়। ড় ড়",
    "விரைவான நரி சோம்பேறி நாயின் மேல் தாவுகிறது. கொ கொ",
    "వేగవంతమైన నక్క సోమరి కుక్క మీద దూకుతుంది.",
    "වේගවත් නරියා කම්මැලි බල්ලා උඩින් පනියි. ක්‍ෂ",
    "สุนัขจิ้งจอกกระโดดข้ามสุนัขขี้เกียจ น้ำ กำ ทำ",
    "ໝາຈອກໄວໂດດຂ້າມໝາຂີ້ຄ້ານ ນ້ຳ",
    "မြန်မာဘာသာ စကား ပြောတတ်လား။",
    "កញ្ជ្រោងលឿនលោតពីលើឆ្កែខ្ជិល។",
    "ፈጣኑ ቀበሮ ሰነፉን ውሻ ዘለለ።",
    "東京は日本の首都です。ｶﾀｶﾅとﾊﾞﾋﾞﾌﾞ、㍿㌔①②が、か゛が゙",
    "机器学习正在改变世界，（全角）ＡＢＣ１２３！“引号”",
    "機器學習正在改變世界。䨻𠀀𪚥",
    "빠른 여우가 게으른 개를 뛰어넘는다. 한글 각 ㄱㄴ",
    "𝕳𝖊𝖑𝖑𝖔 𝒲ℴ𝓇𝓁𝒹 Ⅷ ℃ ℡ ﬁ ﬀ ſ ǆ ß ẞ ½ ⅔ x² H₂O ™ ª",
)

_EMOJI = (
    "😀🎉 10/10 would recommend 👍🏽",
    "👩‍🚀👨‍👩‍👧‍👦🏳️‍🌈🏴󠁧󠁢󠁥󠁮󠁧󠁿 family",
    "9️⃣#️⃣ ❤️ ❤ ☃︎ ☃️ 🇩🇪🇫🇷🇩",
)

_MARKS = (
    "e\u0301 \u00e9 e\u0323\u0301 e\u0301\u0323 \u1eb9\u0301 a\u0300\u0301b",
    "A\u030a\u0327 \u212b \u00c5 o\u0302\u0301 q\u0307\u0323 \u1e9b\u0323",
    "Z\u0335\u0321\u0300\u0301\u0302a\u0316\u0317l\u0334g\u0360o\u0361",
    "\u0301 starts with a mark, ends with one \u0301",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u1100\u1161 \uac00\u11a8 \u304b\u3099 \u30cf\u309a",
    "\u0915\u093c \u0928\u093c \u09a1\u09bc \u0b95\u0bc6\u0bbe \u0f42\u0fb7 \u05e9\u05bc\u05c1",
    "\uff41\u0300\uff42 \ufb01\u0301 \u00bd\u0301 \u2460\u20dd \u3300\u0301",
    "\ufdfa \ufdf0 \ufe8e\ufedf \u0644\u0627 \ufefb \u0640\u064e",
)

_CONTROLS = (
    "tab\there\nnew line\r\nreturn\rform\x0cfeed\x0bvertical",
    "\x00null \x01\x02\x1f unit \x7f delete \x80\x85\x9f next",
    "zero\u200bwidth\u200cspace\u200djoin\u2060er\ufeff mark\u00ad soft",
    "\u200eleft\u200fright \u202aembed\u202c \u202bx\u202c \u2066y\u2069 \u061c",
    "no\u00a0break\u202fnarrow\u2007figure\u3000ideographic\u2003em\u1680ogham\u2028line\u2029para",
    "\ufff9anchor\ufffa \ufffc\ufffd \ufffe \uffff \U0001fffe \U0010ffff \ue000 \U000f0000",
    "\u0378\u0379\u0530 \u1f16 \u2fe0 \U0001e000 \U000323b0 unassigned",
)

_SPACES = (
    "",
    " ",
    "   ",
    "\t\n\r ",
    "\u3000",
    "\u200b",
    "\u00ad\u200b\ufeff",
    "\x00\x01",
    "  leading and trailing  ",
    "many      spaces     between " + " " * 40 + "words",
    "\u2581",
    "\u2581 \u2581\u2581lower\u2581one eighth \u2581block\u2581",
    "a \u2581 b",
    " . , ! ? ' n't 'm 's 've 're do n't I 'm he 's they 're we 've ' quoted '",
)

_SIGNS = (
    "https://example.org/a/b?c=d&e=%20f#g user.name+tag@mail.example.org C:\\x\\y",
    'def f(x: int) -> str:\n    return f"{x!r:>{10}}"  # NEW_LINE INDENT\n\tpass',
    "E = mc^2, f(x) = 3x + 1; <b>not</b> html & 50% off!!!",
    "1,234,567.89 3.14159265358979 -1e-10 0x1F 12:34:56 2024-02-29 1/2 #1 №5 §3 $9.99 €1 ¥2 ₹3",
    "----==== ____ .... ,,,, !!!! ???? ((((())))) [[[]]] {{{}}} <<<>>> ~~~ ``` ''' \"\"\"",
    "hahahahahahahahahaha nooooooooooooo 11111111111111111111 0000000000000",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 4,
    "x" * 400,
    "ab" * 200,
    "日" * 100,
    "iPhone eBay McDONALD'S ÜBER ǅ İ I i ı naïve NAÏVE Ångström",
)

_SPECIAL = (
    "</s>",
    "<s>",
    "<unk>",
    "<pad>",
    "<mask>",
    "before </s> after",
    "before</s>after",
    "</s></s> <unk><pad> <s> <mask> x <mask>y z<mask>",
    "[CLS] a [SEP] b [PAD] [UNK] [MASK]c",
    "<extra_id_0> and <extra_id_1>, <extra_id_99><extra_id_100>",
    "__en__ hello __fr__bonjour __xx__ __en____fr__es__",
    "en_XX hello fr_XXbonjour ro_RO de_DE",
    "eng_Latn hello fra_Latnbonjour zho_Hans deu",
    ">>fra<< hello",
    ">>fra<<hello >>deu<< hallo",
    ">> not a code << x",
    ">>open only",
    ">><< empty",
    "__python__ def f(): pass __java__",
    "__start__ __end__ __unk__ __null__ __newln__",
    "<unk_2> <unk_102> <mask_1><mask_2> <n>",
    "<0x41> <0xE2><0x96><0x81> <|endoftext|>",
    "\u2047 double question \u2047",
    "< /s> </ s> </S> <S>",
)

SENTENCES = _SENTENCES
"""One sentence a language, in some 25 scripts."""
LINES = _SENTENCES + _EMOJI + _MARKS + _CONTROLS + _SPACES + _SIGNS + _SPECIAL
"""Everything that was thought of."""

# First and last code point of what random texts are made of, denser where texts are.
_RANGES = (
    *((0x20, 0x7E),) * 4,
    *((0xA0, 0x24F),) * 2,
    (0x0, 0x9F),
    (0x300, 0x36F),
    (0x370, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0xDFF),
    (0xE00, 0xFFF),
    (0x1000, 0x1FFF),
    (0x2000, 0x2BFF),
    (0x3000, 0x33FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFFFF),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF),
    (0xE000, 0x10FFFF),
)


def make_lines(num_lines: int, seed: int = 20180620) -> list[str]:
    """All of :data:`LINES`, then mixtures of their words and random code points.

    The same for the same seed, on every machine.
    """
    generator = random.Random(seed)
    words = [word for line in LINES for word in line.split(" ")]
    makers = itertools.cycle((_mix_words, _mix_words, _mix_characters))
    lines = list(LINES)
    while len(lines) < num_lines:
        lines.append(next(makers)(generator, words))
    return lines[:num_lines]


def _mix_words(generator: random.Random, words: list[str]) -> str:
    separators = (" ", " ", " ", " ", "", "  ", "\n", "\u3000")
    parts: list[str] = []
    for _ in range(generator.randint(1, 10)):
        parts += generator.choice(words)[:30], generator.choice(separators)
    return "".join(parts)


def _mix_characters(generator: random.Random, words: list[str]) -> str:
    parts: list[str] = []
    for _ in range(generator.randint(1, 6)):
        first, last = generator.choice(_RANGES)
        parts += (chr(generator.randint(first, last)) for _ in range(generator.randint(1, 6)))
        parts.append(generator.choice((" ", "", generator.choice(words)[:5])))
    return "".join(parts)
