import pytest
import torch

from networks import weights
from utils import WeightsUnavailableError, save_checkpoint


class TestPretrainedWeights:
    def test_cached_file_is_used_and_absence_is_explained(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        url = "http://127.0.0.1:9/models/small-12345678.pth"  # nobody listens on the discard port
        with pytest.raises(WeightsUnavailableError) as error:
            weights.hub_weights(url, "some weights", "use --flag")
        for part in (
            "some weights",
            "small-12345678.pth",
            str(tmp_path / "hub" / "checkpoints"),
            "use --flag",
        ):
            assert part in str(error.value)
        save_checkpoint(tmp_path / "hub" / "checkpoints" / "small-12345678.pth", {"w": torch.ones(2)})
        assert torch.equal(weights.hub_weights(url, "some weights", "")["w"], torch.ones(2))

    @pytest.mark.parametrize("damage", ["absent", "truncated", "older format", "list", "web page", "foreign"])
    def test_unusable_file_is_named_and_the_short_message_has_no_path(self, tmp_path, monkeypatch, damage):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        folder = tmp_path / "hub" / "checkpoints"
        file = folder / "small-12345678.pth"
        if damage == "absent":  # and the folder cannot be made: an error whose own text names a path
            (tmp_path / "hub").write_text("a file")
        else:
            content = {"foreign": {"w": "no tensor"}, "list": [1]}.get(damage, {"w": torch.ones(2000)})
            folder.mkdir(parents=True)
            torch.save(content, file, _use_new_zipfile_serialization=damage != "older format")
        if damage in ("truncated", "older format"):
            file.write_bytes(file.read_bytes()[:-1000])
        elif damage == "web page":
            file.write_text("<html>sign in</html>")
        with pytest.raises(WeightsUnavailableError) as error:
            weights.hub_weights(f"http://127.0.0.1:9/{file.name}", "some weights", "use --flag")
        message, short = str(error.value), error.value.short
        assert str(folder) in message and str(tmp_path) not in short
        for text in (message, short):
            assert text.startswith(f"some weights: {file.name} ") and text.endswith("or use --flag")

    def test_any_cut_through_a_file_of_the_older_format_is_noticed(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        file = tmp_path / "hub" / "checkpoints" / "small-12345678.pth"
        file.parent.mkdir(parents=True)
        torch.save({"w": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
        whole = file.read_bytes()
        for size in range(len(whole)):  # torch raises IndexError, struct.error and others besides its own
            file.write_bytes(whole[:size])
            with pytest.raises(WeightsUnavailableError):
                weights.hub_weights(f"http://127.0.0.1:9/{file.name}", "some weights", "use --flag")
