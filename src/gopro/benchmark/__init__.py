"""Benchmarks: many training runs, their evaluation by the field's protocols, and the report on them."""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, which doubles as the public function `gopro.benchmark`.

    Python sets the attribute `gopro.benchmark` to this package as soon as any of its modules is imported. Calling the
    package therefore calls `gopro.benchmark.runner.benchmark`, so the public name works in any order of imports.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from gopro.benchmark.runner import benchmark

        return benchmark(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
