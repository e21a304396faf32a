"""The figures of a peer in the form in which bench.sh reads them: one line of JSON.

Its memory is the sum of the peaks of the process and of all below it (of Spark the Java that does the work), as the
kernel keeps them; so it has to be asked for while those still run.
"""

import json
import os
from pathlib import Path


def peak_memory_mib() -> int:
    peaks, children = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:  # It has ended meanwhile.
            continue
        process = int(fields["Pid"])
        peaks[process] = int(fields.get("VmHWM", "0 kB").split()[0])
        children.setdefault(int(fields["PPid"]), []).append(process)
    kib, tree = 0, [os.getpid()]
    while tree:
        process = tree.pop()
        kib += peaks[process]
        tree += children.get(process, [])
    return kib // 1024


def report(events: int, seconds: float, **more) -> None:
    figures = {"events": events, "seconds": round(seconds, 3), "peak_memory_mib": peak_memory_mib(), **more}
    print(json.dumps(figures, separators=(",", ":")), flush=True)
