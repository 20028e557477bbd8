"""From items to outcomes: messages of the readers become batches of the encoder."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from oncofm.encoders.encoder import Encoder
from oncofm.imaging.scan import SkippedFile
from oncofm.workflow.batch.reader import ItemEnd, ItemFailed, Message
from oncofm.workflow.case import Case, CaseOutcome, CaseState, InputVerdict, LesionOutcome
from oncofm.workflow.run import SampledChunk, SampledLesion, encode_sampled


@dataclass
class ItemOutcome:
    """How an item ended.

    Attributes
    ----------
    position : int
        Of the item.
    cases : dict of int to CaseOutcome
        Number of the case -> its outcome, as far as known.
    n_cases : int or None
        How many there will be; None while the item is read.
    verdicts, skipped
        As in `oncofm.workflow.gather.Worklist`.
    failure : ItemFailed or None
        Set where the item as a whole failed; what is known of its cases then counts for nothing.
    """

    position: int
    cases: dict[int, CaseOutcome] = field(default_factory=dict)
    n_cases: int | None = None
    verdicts: tuple[InputVerdict, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    failure: ItemFailed | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is on its way any more."""
        return self.n_cases is not None and len(self.cases) == self.n_cases

    @property
    def outcomes(self) -> list[CaseOutcome]:
        """The cases in their order."""
        return [self.cases[number] for number in sorted(self.cases)]


def compute_items(
    messages: Iterable[Message], load_encoder: Callable[[], Encoder]
) -> Iterator[ItemOutcome]:
    """Encode what readers have sampled, in batches that are filled across items.

    Parameters
    ----------
    messages : iterable of Message
        From the readers.
    load_encoder : callable
        Gives the encoder.

    Yields
    ------
    ItemOutcome
        Each item once, when it is complete or has failed; in no particular order.
    """
    items: dict[int, ItemOutcome] = {}
    begun: dict[int, dict[int, _Begun]] = {}
    finished: list[ItemOutcome] = []

    def item_at(position: int) -> ItemOutcome:
        return items.setdefault(position, ItemOutcome(position))

    def settle(item: ItemOutcome) -> None:
        if item.is_complete and items.pop(item.position, None) is not None:
            finished.append(item)

    def chunks() -> Iterator[SampledChunk]:
        for message in messages:
            if isinstance(message, SampledChunk):
                position, number = message.key
                cases = begun.setdefault(position, {})
                case = cases[number].case if message.start else message.case
                cases[number] = _Begun(case, message.start + len(message.lesions))
                yield replace(message, case=case)
                continue
            item, seen = item_at(message.position), begun.pop(message.position, {})
            if isinstance(message, ItemEnd):
                item.n_cases = message.n_cases
                item.verdicts, item.skipped = message.verdicts, message.skipped
            else:
                item.n_cases, item.failure = len(seen), message
                yield from _rest(seen, message)
            settle(item)
            # Comes out of the encoder at once, so an item without a lesion does not wait either.
            yield SampledChunk(_NOTHING, Case(""), 0, ())

    for key, outcome in encode_sampled(chunks(), load_encoder):
        if key != _NOTHING:
            position, number = key
            item = item_at(position)
            item.cases[number] = outcome
            settle(item)
        while finished:
            yield finished.pop(0)
    yield from finished


_NOTHING = (-1, -1)


@dataclass(frozen=True)
class _Begun:
    """A case of which some lesions were sampled."""

    case: Case
    n_sampled: int


def _rest(cases: Mapping[int, _Begun], failure: ItemFailed) -> Iterator[SampledChunk]:
    """Make up the lesions of cases that never came, so that these cases do not stay open."""
    for number, begun in cases.items():
        missing = begun.case.seeds[begun.n_sampled :]
        if missing:
            lesions = tuple(
                SampledLesion(
                    LesionOutcome(seed, CaseState.FAILED, failure.reason, failure.message)
                )
                for seed in missing
            )
            key = (failure.position, number)
            yield SampledChunk(key, begun.case, begun.n_sampled, lesions)
