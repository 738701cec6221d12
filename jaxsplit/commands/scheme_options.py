"""The options of `jaxsplit run` that say which scheme it is: cut, codec, order, clock."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxsplit.clock import Allocation, Clock, PhaseParams, phase_clock, transmission_clock
from jaxsplit.commands.device_limits import per_device
from jaxsplit.commands.learning_options import POLICIES, LearningOptions
from jaxsplit.compression import CODECS, Codec, CodecParams
from jaxsplit.costs import Processor
from jaxsplit.federated import LearningParams, Scheme
from jaxsplit.network import Network, NetworkParams
from jaxsplit.options import OptionError, number, whole
from jaxsplit.wireless import fixed_snr
from jaxsplit.wireless.fixed import FixedSnrParams

SchemeName = Literal["fedft", "sft", "sft_uncompressed", "sl", "fl_lora", "fl_full"]
CodecName = Literal["identity", "top_k", "quantization", "top_k_quantization", "compressed"]
_WITH_CUT = ("sft", "sft_uncompressed", "sl")
_WITHOUT_CUT = ("fl_lora", "fl_full")


@dataclass(frozen=True, kw_only=True)
class SchemeOptions(LearningOptions):
    """What is split where, what crosses the link and how long that takes."""

    scheme: SchemeName = "fedft"
    """FedFT, SFT with or without compression, split learning, federated LoRA or all weights."""
    cut: Annotated[int | None, whole(0).or_none()] = None
    """Transformer blocks on the devices; 0 for fedft by default, to be given for sft and sl."""
    codec: (
        Literal["identity", "top_k", "quantization", "top_k_quantization", "compressed"] | None
    ) = None
    """Compression of activations and gradients on the link; the scheme's own by default."""
    codec_ratio: Annotated[float, number(above=0, at_most=1)] = 0.2
    """Part of the activations that top-K keeps, rho."""
    codec_levels: Annotated[int, whole(1)] = 7
    """Intervals of the quantizer E, up to 255: b bits are 2^b - 1."""
    masked_gradient: bool = False
    """Send no gradient for activations that top-K dropped, instead of straight-through."""
    upload_codec: (
        Literal["identity", "top_k", "quantization", "top_k_quantization", "compressed"] | None
    ) = None
    """Compression of the adapters that each device uploads once per round; none by default."""
    upload_ratio: Annotated[float, number(above=0, at_most=1)] = 0.1
    """Part of an upload that top-K keeps."""
    upload_levels: Annotated[int, whole(1)] = 7
    """Intervals of the uploads' quantizer, up to 255."""
    error_feedback: bool = False
    """Keep what the upload codec loses and send it with the device's next round."""
    channel: Literal["rayleigh", "fixed_snr"] = "rayleigh"
    """A disc with Rayleigh fading (FedFT), or an SNR that never changes (SFT)."""
    snr_db: tuple[float, ...] = (17.0,)
    """SNR over the whole band, dB, with --channel fixed_snr: one for all, two ends, or each."""
    clock: Literal["transmission", "phases"] | None = None
    """What a round's delay counts: sending (fedft), or all phases with computing (the others)."""
    allocation: Allocation = "min_max"
    """How the clock of phases shares the band, round by round."""
    device_clock_ghz: tuple[float, ...] = (0.5, 1.5)
    """Device clocks, GHz, 256 cores at 4 FLOP/cycle: one for all, two ends evenly spread, or each.
    """
    device_memory_mib: tuple[float, ...] | None = None
    """Memory of the devices, MiB: one for all, two ends, or each; what does not fit is refused."""
    server_clock_ghz: Annotated[float, number(above=0)] = 3.0
    """The server's clock, GHz, 2048 cores at 4 FLOP/cycle."""

    def check_scheme(self, num_blocks: int | None = None) -> None:
        """Check what goes together.

        Args:
          num_blocks: L of the checkpoint, once it is known.

        Raises:
          OptionError: for the first wrong value.
        """
        for name in ("codec_levels", "upload_levels"):
            if getattr(self, name) > 255:
                raise OptionError(name, getattr(self, name), "a whole number from 1 to 255")
        for name in ("device_clock_ghz", "device_memory_mib", "snr_db"):
            if (values := getattr(self, name)) is not None:
                numbers = per_device(name, values, self.devices)
                if name != "snr_db" and numbers.min() <= 0:
                    raise OptionError(name, values, "numbers above 0")
        if self.scheme in _WITH_CUT and self.cut is None:
            raise OptionError("cut", None, f"the blocks on the devices for --scheme {self.scheme}")
        if self.scheme in _WITHOUT_CUT:
            for name in ("cut", "codec"):
                if getattr(self, name) is not None:
                    text = f"nothing: with --scheme {self.scheme} the whole model is on the devices"
                    raise OptionError(name, getattr(self, name), text)
        if self.scheme in ("sft_uncompressed", "sl") and self.codec not in (None, "identity"):
            raise OptionError("codec", self.codec, f"nothing, or --scheme sft, not {self.scheme}")
        if self.masked_gradient and self._codec_name in ("identity", "quantization"):
            text = f"it with a codec that drops entries, not with {self._codec_name}"
            raise OptionError("masked_gradient", True, text)
        self._check_upload()
        if num_blocks is not None and (self.cut or 0) > num_blocks:
            raise OptionError("cut", self.cut, f"0 to {num_blocks}, the model's blocks")

    def _check_upload(self) -> None:
        if self.upload_codec is None:
            if self.error_feedback:
                raise OptionError("error_feedback", True, "it with an --upload-codec")
        elif self.scheme == "sl":
            text = "nothing: with --scheme sl weights are handed on from device to device"
            raise OptionError("upload_codec", self.upload_codec, text)
        elif not self.copies:
            text = "it with --adapters per_device: devices upload no global adapters"
            raise OptionError("upload_codec", self.upload_codec, text)

    @property
    def copies(self) -> bool:
        """Whether each device trains a copy of the adapters."""
        return self.scheme != "fedft"

    def _codec(self) -> Codec | None:
        """The link's codec, None for the link as it is."""
        if self._codec_name == "identity":
            return None
        make: Any = CODECS[self._codec_name]
        return make("masked") if self.masked_gradient else make()

    @property
    def _codec_name(self) -> str:
        return self.codec or ("compressed" if self.scheme == "sft" else "identity")

    def in_scheme(self, scheme: Scheme) -> Scheme:
        """FedFT's scheme with this one's values on the axes where they differ.

        Args:
          scheme: with the options that all schemes share.

        Returns:
          The scheme.

        Raises:
          OptionError: an upload codec where devices upload nothing.
        """
        has_head = self.scheme == "fedft" and scheme.heads == "shared"
        if self.upload_codec and self.scheme not in _WITHOUT_CUT and not (self.cut or has_head):
            text = "it with a --cut of 1 or more: above, devices have no adapters to upload"
            raise OptionError("upload_codec", self.upload_codec, text)
        upload = CODECS[self.upload_codec]() if self.upload_codec else None
        scheme = dataclasses.replace(
            scheme, upload_codec=upload, error_feedback=self.error_feedback
        )
        if self.scheme == "fedft":
            return dataclasses.replace(scheme, cut=self.cut or 0, codec=self._codec())
        scheme = dataclasses.replace(scheme, heads="shared")
        if self.scheme in _WITHOUT_CUT:
            full = self.scheme == "fl_full"
            model = scheme.model.clone(lora=None) if full else scheme.model
            return dataclasses.replace(scheme, cut=None, model=model)
        order: Any = "sequential" if self.scheme == "sl" else "parallel"
        return dataclasses.replace(
            scheme, cut=self.cut, head_side="server", codec=self._codec(), order=order
        )

    def learning_params(self) -> LearningParams:
        """See `LearningOptions`; the codecs' numbers are with them."""
        codec = CodecParams(self.codec_ratio, self.codec_levels) if self._codec() else None
        upload = CodecParams(self.upload_ratio, self.upload_levels) if self.upload_codec else None
        return super().learning_params()._replace(codec=codec, upload_codec=upload)

    def network(self, policy: str) -> Network:
        """See `LearningOptions`."""
        if self.channel == "rayleigh":
            return super().network(policy)
        return Network(self.devices, fixed_snr(), POLICIES[policy]())

    def network_params(self, policy: str) -> NetworkParams:
        """See `LearningOptions`."""
        params = super().network_params(policy)
        if self.channel == "rayleigh":
            return params
        snr_db = per_device("snr_db", self.snr_db, self.devices)
        channel = FixedSnrParams(snr_db, self.bandwidth_hz, self.power_dbm, self.noise_dbm_per_hz)
        return params._replace(channel=channel)

    def round_clock(self) -> tuple[Clock, Any]:
        """See `LearningOptions`."""
        phases = "transmission" if self.scheme == "fedft" else "phases"
        if (self.clock or phases) == "transmission":
            return transmission_clock(), ()
        clock_hz = 1e9 * per_device("device_clock_ghz", self.device_clock_ghz, self.devices)
        return phase_clock(self.allocation), PhaseParams(
            devices=Processor(clock_hz, 256.0, 4.0),
            server=Processor(1e9 * self.server_clock_ghz, 2048.0, 4.0),
        )
