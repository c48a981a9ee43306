package der

import "crypto"

// CountVerifications returns an algorithm like a, and how often it has verified.
func (a Algorithm) CountVerifications() (Algorithm, *int) {
	n, verify := new(int), a.verify
	a.verify = func(pub crypto.PublicKey, digest, signature []byte) error {
		*n++
		return verify(pub, digest, signature)
	}
	return a, n
}
