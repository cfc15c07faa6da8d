"""Many runs and what they showed: protocols, the runner that does what is missing, and the report."""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, which is also the public function `gopro.benchmark`.

    Importing any module of a package makes Python set `gopro.benchmark` to the package. Calling the package therefore
    calls `gopro.benchmark.runner.benchmark`, whichever was imported first.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from gopro.benchmark.runner import benchmark

        return benchmark(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
