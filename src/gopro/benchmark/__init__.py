"""Benchmarks: many training runs, their evaluation by the field's protocols, and the report on them.

`gopro.benchmark` is the public function of `runner`, not this package: lazy_loader (from 0.6) keeps an import of the
package from replacing it. So write `from gopro.benchmark import worker`, not `import gopro.benchmark.worker as worker`.
"""
