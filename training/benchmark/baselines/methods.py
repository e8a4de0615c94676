"""The methods by name, in the order in which they are run: cheap ones first."""

from collections.abc import Callable
from dataclasses import dataclass

from training.benchmark.baselines import classical, encoded, gan, gan_ad, networks
from training.benchmark.baselines.points import Points, Scored


@dataclass(frozen=True)
class Method:
    """score: scores the test points with a setting; settings: at most three, of which one is chosen; knob: its name.

    from_run: it needs a trained beta-VAE; trained: it trains in epochs, for hours if it is given every point.
    """

    score: Callable[[Points, float], Scored]
    settings: tuple[float, ...] = (0.0,)
    knob: str = ""
    from_run: bool = False
    trained: bool = False


WIDTHS = (1, 10, 50)  # of a one-class SVM, in units of scikit-learn's default gamma
METHODS = {
    "ecgwatch: S, 5,000 references": Method(encoded.map_score, from_run=True),
    "ecgwatch: D alone, 5,000 references": Method(encoded.map_distance, from_run=True),
    "reconstruction only": Method(encoded.reconstruction, from_run=True),
    "latent nearest neighbours": Method(encoded.neighbours, (1, 3, 5), "k", from_run=True),
    "latent Mahalanobis": Method(encoded.mahalanobis, from_run=True),
    "VAE + OCSVM": Method(encoded.vae_ocsvm, WIDTHS, "gamma", from_run=True),
    "isolation forest, raw beats": Method(classical.isolation_forest, (256, 1024, 4096), "samples"),
    "OCSVM, raw beats": Method(classical.raw_ocsvm, WIDTHS, "gamma"),
    "Deep SVDD": Method(networks.deep_svdd, (8, 32, 128), "width", trained=True),
    "DBN + OCSVM": Method(classical.dbn_ocsvm, WIDTHS, "gamma", trained=True),
    "f-AnoGAN": Method(gan.f_anogan, (1e-4, 3e-4, 1e-3), "learning rate", trained=True),
    "UMAP in the place of t-SNE: S": Method(encoded.umap_score, (15, 30, 100), "neighbours", from_run=True),
    "UMAP in the place of t-SNE: D alone": Method(encoded.umap_distance, (15, 30, 100), "neighbours", from_run=True),
    "ecgwatch: S, all references": Method(encoded.full_score, from_run=True),
    "LSTM-VAE": Method(networks.lstm_vae, (0.01, 0.1, 1.0), "beta", trained=True),
    "GAN-AD": Method(gan_ad.gan_ad, (3e-4, 1e-3, 3e-3), "learning rate", trained=True),
}
