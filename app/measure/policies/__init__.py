"""What evaluations compare Quest with: other ways to decide what a decode step reads. No chat can reach them."""

# By name, in `rivals.py`; here for those who must not load torch.
POLICIES = ("oracle", "streaming", "raas", "h2o", "tova")
