"""The table of checks. A new check is a function `(Context) -> Finding` and one entry here."""

from pipeline.doctor import golden, gpu, host, model, stores
from pipeline.doctor.check import Check, Context, Place, Scope, hosts_model

_M, _J = Scope.MACHINE, Scope.JOB

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(name="source", scope=_J, place=Place.DRIVER, run=stores.source, timeout_s=600),
        Check(name="driver", scope=_M, place=Place.NODE, run=gpu.driver),
        Check(name="CUDA", scope=_M, place=Place.NODE, run=gpu.cuda, timeout_s=120),
        Check(name="GPU memory", scope=_M, place=Place.NODE, run=gpu.memory),
        Check(name="compiler", scope=_M, place=Place.NODE, run=host.compiler),
        Check(name="shared memory", scope=_M, place=Place.NODE, run=host.shared_memory),
        Check(name="open files", scope=_M, place=Place.NODE, run=host.open_files),
        Check(name="disk", scope=_M, place=Place.NODE, run=host.disk_for_reading),
        Check(name="disk of weights", scope=_J, place=Place.NODE, run=host.disk_for_weights, needs=hosts_model),
        Check(name="clock", scope=_J, place=Place.NODE, run=stores.clock),
        Check(name="reading", scope=_J, place=Place.NODE, run=stores.reading, timeout_s=120),
        Check(name="output", scope=_J, place=Place.NODE, run=stores.output, timeout_s=120),
        Check(name="weights", scope=_J, place=Place.NODE, run=model.files, needs=hosts_model),
        Check(name="layout", scope=_J, place=Place.NODE, run=model.layout, timeout_s=180, needs=hosts_model),
        # A first start downloads 17 GB and compiles.
        Check(
            name="golden image", scope=_J, place=Place.ENGINE, run=golden.golden, timeout_s=1800, needs=golden.has_model
        ),
    )
}
"""Name to check, in the order of the table that users see."""


def checks_at(place: Place, context: Context) -> list[Check]:
    """Return the checks of a place that have a meaning for this node and job."""
    return [check for check in CHECKS.values() if check.place is place and check.applies(context)]
