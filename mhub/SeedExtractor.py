"""Turn segmentations, contours, masks, reports and points into seeds: one point per lesion."""

from mhubio.core import IO, Module

from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.mhub.instances import adopt_instances, publish_seeds


@IO.Config("kinds", list, [], the="seg, rtstruct, sr, points, mask, table; none: what there is")
@IO.Config("labels", list, [], the="patterns of the segments, ROIs or points to use; none: all")
@IO.Config("per", str, "segment", the="one seed per segment or per connected component")
@IO.Config("min_volume_mm3", float, 0.0, the="smaller segments or components give no seed")
@IO.Config("threshold", float, 0.5, the="fraction that counts in a FRACTIONAL segmentation")
class SeedExtractor(Module):
    """Every annotation finds its instance by the UIDs it names; each lesion is on its own."""

    kinds: list
    labels: list
    per: str
    min_volume_mm3: float
    threshold: float

    def check(self) -> None:
        """Refuse settings that cannot be, before any work."""
        context_of(self.config).configure(
            seed_kinds=tuple(self.kinds),
            labels=tuple(map(str, self.labels)),
            per=self.per,
            min_volume_mm3=self.min_volume_mm3,
            seg_threshold=self.threshold,
        )

    def task(self) -> None:
        """Read the annotations of all instances, those of other modules included."""
        self.check()
        context = context_of(self.config)
        context.survey = adopt_instances(self.config.data, context.survey)
        publish_seeds(self.config.data, context.read_seeds(), context.scratch)
