"""Texts that models are verified on when their checkpoint brings none."""

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "a",
    "How do I reset my password?",
    "Übung macht den Meister, sagt die Großmutter.",
    "El niño comió una manzana en el jardín.",
    "東京は日本の首都です。",
    "机器学习正在改变世界。",
    "Привет, как дела?",
    "I love this! 😀🎉 10/10 would recommend 👍🏽",
    "E = mc^2, f(x) = 3x + 1; <b>not</b> html & 50% off!!!",
    "NAÏVE café résumé coöperate Ångström",
    "Once upon a time there was a model that had to read a rather long text. " * 12,
)
"""Sources every checkpoint is verified with: scripts, accents, emoji, signs, short and long."""
