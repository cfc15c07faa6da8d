"""GOPro: prompt learning for CLIP with self-supervision.

The public names stand in `__init__.pyi` and are loaded when they are first used, so that `import gopro` takes
milliseconds and not the seconds that importing torch takes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
