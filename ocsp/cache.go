package ocsp

import "sync"

// cacheOctets bounds the cache's memory: some 8,000 to 16,000 answers.
const cacheOctets = 32 << 20

// cache keeps answers by the CertIDs they were asked with. It forgets by generations: when the
// young one is half the allowance, it becomes the old one and the old one goes; what is asked for
// in the old one becomes young again. An answer in it is not to be changed. Safe for concurrent use.
type cache struct {
	half int // octets of a generation

	mu         sync.Mutex // guards the rest, for the length of a map access
	young, old map[string]answer
	octets     int // of young
}

func newCache(octets int) *cache {
	return &cache{half: octets / 2, young: make(map[string]answer)}
}

func (c *cache) get(key string) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.young[key]
	if ok {
		return a, true
	}
	if a, ok = c.old[key]; ok {
		delete(c.old, key)
		c.add(key, a)
	}
	return a, ok
}

func (c *cache) put(key string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.old, key)
	c.add(key, a)
}

// add puts a into the young generation. c.mu is held.
func (c *cache) add(key string, a answer) {
	if previous, ok := c.young[key]; ok {
		c.octets -= weight(key, previous)
	}
	c.young[key] = a
	c.octets += weight(key, a)
	if c.octets > c.half {
		c.old, c.young, c.octets = c.young, make(map[string]answer), 0
	}
}

// weight is about what an entry takes, in octets.
func weight(key string, a answer) int {
	const overhead = 512 // the answer itself with its header fields, the map's share
	return len(key) + len(a.der) + 40*len(a.statuses) + overhead
}
