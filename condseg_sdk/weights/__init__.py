"""Where weights come from: names, manifests, ImageNet encoders and converted files."""
