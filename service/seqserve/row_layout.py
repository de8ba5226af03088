"""Which cache row belongs to which hypothesis: dense rows, and the copies that keep them so.

Every live hypothesis has one cache row, and rows of running sequences are 0 to B-1. Where a
hypothesis stands in another row than it should (its parent beam's, or beyond the end after others
left), its row is copied first.
"""

from collections.abc import Iterable

from seqserve.batch import RowCopy
from seqserve.sequence import Sequence


def lay_out(running: list[Sequence]) -> list[RowCopy]:
    """Gives the running hypotheses the rows 0..B-1 and says which must be copied for it.

    A hypothesis stays where it is if it can. Else it takes a row that holds its source already,
    one that a dropped beam of its sequence left; else any free row.
    """
    free = set(range(sum(sequence.num_rows for sequence in running)))
    homeless: list[tuple[Sequence, int]] = []
    old_rows = [list(sequence.rows) for sequence in running]
    for sequence in running:
        for index, row in enumerate(sequence.rows):
            if row in free:
                free.remove(row)
            else:
                homeless.append((sequence, index))
    strangers = []
    for sequence, index in homeless:
        own = sequence.source_rows & free
        if own:
            sequence.rows[index] = min(own)
            free.remove(min(own))
        else:
            strangers.append((sequence, index))
    for (sequence, index), row in zip(strangers, sorted(free), strict=True):
        sequence.rows[index] = row
    copies = [
        copy
        for sequence, rows in zip(running, old_rows, strict=True)
        for copy in _copies(sequence, rows)
    ]
    for sequence in running:
        sequence.source_rows = frozenset(sequence.rows)
        sequence.row_targets = {}
    return copies


def place(sequences: Iterable[Sequence], first_row: int) -> None:
    """Gives new sequences the rows that follow those of the running ones."""
    for sequence in sequences:
        sequence.rows = list(range(first_row, first_row + sequence.num_rows))
        sequence.source_rows = frozenset(sequence.rows)
        first_row += sequence.num_rows


def check_rows(sequences: Iterable[Sequence], max_rows: int) -> None:
    """Checks what must hold of rows between any two steps, and while one runs.

    Raises:
        AssertionError: A row was lost, belongs to two sequences, holds another source, or does
            not exist.
    """
    owners: dict[int, Sequence] = {}
    for sequence in sequences:
        rows = sequence.rows
        assert len(rows) == sequence.num_rows, f"{sequence} lost a row"
        assert sequence.source_rows.issuperset(rows), f"{sequence} has a row without its source"
        for row in rows:
            owner = owners.setdefault(row, sequence)
            assert owner is sequence, f"row {row} belongs to two sequences"
    last = max_rows - 1
    assert not owners or (min(owners) >= 0 and max(owners) <= last), f"rows go beyond {last}"


def _copies(sequence: Sequence, old_rows: list[int]) -> list[RowCopy]:
    search = sequence.search
    assert search is not None
    return [
        RowCopy(
            source=old,
            target=new,
            target_length=search.target_length,
            source_length=0 if new in sequence.source_rows else sequence.source_length,
            first_position=_first_difference(sequence.row_targets, old, new),
        )
        for old, new in zip(old_rows, sequence.rows, strict=True)
        if old != new
    ]


def _first_difference(row_targets: dict[int, list[int]], old: int, new: int) -> int:
    """The first position at which the pasts in two rows may differ.

    Beams of a sequence have most of their past in common: a position depends on the tokens up to it
    and on nothing else.
    """
    if old not in row_targets or new not in row_targets:
        return 0
    first, second = row_targets[old], row_targets[new]
    low, high = 0, min(len(first), len(second))
    while low < high:  # invariant: the first `low` tokens are equal
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low + 1  # the start token comes first
