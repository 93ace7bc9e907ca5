"""Print the findings of `spine doctor`."""

from collections import Counter
from collections.abc import Sequence

from spine.cli.doctor.finding import Finding
from spine.cli.output import COLOURS, Output


def report(out: Output, findings: Sequence[Finding]) -> bool:
    """Print the findings. Returns True if one of them is a failure."""
    counts = Counter(finding.level for finding in findings)
    if out.as_json:
        documents = [
            {"level": f.level, "part": f.component, "saw": f.observed, "mend": f.remedy or None} for f in findings
        ]
        out.document({"ok": counts["fail"] == 0, "findings": documents})
        return counts["fail"] > 0
    width = max(len(finding.component) for finding in findings)
    for finding in findings:
        out.text(f"{finding.level:4}  {finding.component:{width}}  {finding.observed}", COLOURS[finding.level])
        if finding.remedy:
            out.text(f"{'':{width + 8}}→ {finding.remedy}")
    out.text(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to mend")
    return counts["fail"] > 0
