"""The methods, one paper per file, behind one interface (`gopro.methods.base.Method`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
