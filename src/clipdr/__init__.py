"""clipdr: reproduce and extend efficient CLIP training (MobileCLIP, CLIP-KD, DIME-FM, CLIP-UP)."""
