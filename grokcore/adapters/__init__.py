"""The measurements inside a framework's own training loop, one line to add; each module needs its framework alone.

``grokcore.adapters.lightning``, ``grokcore.adapters.huggingface``; TensorBoard's ``SummaryWriter`` goes into
:class:`grokcore.Monitor` as it is. ``pip install '.[frameworks]'`` brings all of them.
"""
