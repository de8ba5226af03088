"""The options of ``generate`` that say how to decode."""

import click

DECODING_OPTIONS = (
    click.option("--max-new-tokens", type=int, help="Limit of new tokens."),
    click.option("--num-beams", type=int, help="Beams; 1 is greedy search."),
    click.option("--num-return-sequences", type=int, help="Hypotheses to return for each input."),
    click.option("--length-penalty", type=float, help="Exponent of the length in beam scores."),
    click.option(
        "--early-stopping/--no-early-stopping",
        default=None,
        help="End beam search with the first finished beams.",
    ),
    click.option("--min-new-tokens", type=int, help="Tokens before which no target ends."),
    click.option("--no-repeat-ngram-size", type=int, help="Size of n-grams never repeated."),
    click.option("--repetition-penalty", type=float, help="Above 1 discourages repetition."),
    click.option("--forced-bos-token-id", type=int, help="Token every target begins with."),
    click.option("--max-time", type=float, help="Seconds after which to end with what there is."),
    click.option("--do-sample/--no-do-sample", default=None, help="Draw tokens at random."),
    click.option("--temperature", type=float, help="Above 1 makes rare tokens more likely."),
    click.option("--top-k", type=int, help="Draw among this many tokens; 0 is off."),
    click.option("--top-p", type=float, help="Draw among tokens of this probability; 1 is off."),
    click.option("--seed", type=int, help="Draw the same again; by default the server's choice."),
    click.option(
        "--suppressed-token-id",
        "suppressed_token_ids",
        type=int,
        multiple=True,
        help="Token never generated; may be given several times.",
    ),
    click.option(
        "--suppressed-sequence",
        "suppressed_sequences",
        multiple=True,
        help="Text never generated; may be given several times.",
    ),
    click.option(
        "--top-log-probability-count",
        type=int,
        help="Most probable tokens to print at each position, with --json.",
    ),
    click.option(
        "--return-alternatives/--no-return-alternatives",
        default=None,
        help="Begin each hypothesis with another token.",
    ),
    click.option(
        "--min-alternative-probability", type=float, help="Of the first token of an alternative."
    ),
    click.option(
        "--stop-sequence",
        "stop_sequences",
        multiple=True,
        help="Text that ends a target; may be given several times.",
    ),
    click.option(
        "--include-stop-sequence/--no-include-stop-sequence",
        default=None,
        help="End texts with the stop sequence, not before it.",
    ),
)
