"""The doctor's findings on paper."""

from collections import Counter
from collections.abc import Sequence

from spine.cli.doctor.finding import Finding
from spine.cli.output import COLOURS, Output


def report(out: Output, findings: Sequence[Finding]) -> bool:
    """Print the findings; answers whether one of them is a failure."""
    counts = Counter(finding.level for finding in findings)
    if out.as_json:
        told = [{"level": f.level, "part": f.part, "saw": f.saw, "mend": f.mend or None} for f in findings]
        out.document({"ok": counts["fail"] == 0, "findings": told})
        return counts["fail"] > 0
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        out.text(f"{finding.level:4}  {finding.part:{width}}  {finding.saw}", COLOURS[finding.level])
        if finding.mend:
            out.text(f"{'':{width + 8}}→ {finding.mend}")
    out.text(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to mend")
    return counts["fail"] > 0
