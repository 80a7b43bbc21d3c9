"""What notebooks call to check themselves and the reader's exercises."""

from __future__ import annotations


def check(claim: str, holds: object, *, hint: str) -> None:
    """Print that a claim holds, or stop with a hint why it may not.

    Example:
        >>> check("no old id moved", True, hint="were merges appended?")
        ✓ no old id moved

    Raises:
        AssertionError: the claim does not hold.
    """
    if not holds:
        raise AssertionError(f"✗ {claim}: {hint}")
    print(f"✓ {claim}")


def check_exercise(claim: str, answer: object, correct: bool, *, hint: str) -> None:
    """Say whether a reader's answer to an exercise is right; `None` means not tried, and nothing
    stops.

    Example:
        >>> check_exercise("parity of Thai", None, False, hint="divide the two token counts")
        … parity of Thai: not tried yet
    """
    if answer is None:
        print(f"… {claim}: not tried yet")
    else:
        print(f"✓ {claim}: right" if correct else f"✗ {claim}: not yet; {hint}")
