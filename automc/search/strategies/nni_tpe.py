"""NNI's TPE tuner, its objectives made one by random weights at every ask. Sources: `_nni`; Bergstra et al. 2011."""

from __future__ import annotations

from automc.search.strategies._nni import TpeBase


class NniTpeStrategy(TpeBase):
    name = "nni_tpe"
    summary = "NNI's TPE tuner under random weights of the objectives; needs the extra nas"
