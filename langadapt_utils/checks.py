"""What notebooks call to check their own claims."""


def check(claim: str, holds: object, *, hint: str) -> None:
    """Print that a claim holds, or raise an error with a hint.

    Args:
        claim: a sentence.
        holds: whether it is true.
        hint: what to look at if it is not.

    Example:
        >>> check("no old id moved", True, hint="were merges appended?")
        ✓ no old id moved

    Raises:
        AssertionError: the claim does not hold.
    """
    if not holds:
        raise AssertionError(f"✗ {claim}: {hint}")
    print(f"✓ {claim}")
