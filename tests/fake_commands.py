"""Commands of studies as tests read them."""


def words_of(command: list[str]) -> dict[str, str]:
    """Return flag -> value of a command."""
    return dict(zip(command[1:], [*command[2:], ""], strict=True))
