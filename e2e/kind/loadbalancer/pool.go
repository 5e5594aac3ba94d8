package main

import (
	"fmt"
	"net/netip"
)

// pool knows which addresses of a range are given to whom. Owners without a wish get addresses of the lower three
// quarters: the upper quarter is only for those who ask for one of them, so that a wish for a fixed address is
// not lost to somebody who would have taken any.
type pool struct {
	addresses netip.Prefix
	free      []netip.Addr // in the order in which they are given: one that was released waits longest
	owners    map[netip.Addr]string
}

func newPool(addresses netip.Prefix) *pool {
	p := &pool{addresses: addresses.Masked(), owners: map[netip.Addr]string{}}
	var hosts []netip.Addr
	for a := p.addresses.Addr().Next(); p.addresses.Contains(a.Next()); a = a.Next() {
		hosts = append(hosts, a)
	}
	p.free = hosts[:len(hosts)/4*3]
	return p
}

// of returns the owner's address, or the zero Addr.
func (p *pool) of(owner string) netip.Addr {
	for a, o := range p.owners {
		if o == owner {
			return a
		}
	}
	return netip.Addr{}
}

// take gives the owner the wished address, or any free one for an empty wish.
func (p *pool) take(owner, wish string) (netip.Addr, error) {
	if wish == "" {
		for i, a := range p.free {
			if p.owners[a] == "" {
				p.free = append(p.free[:i:i], append(p.free[i+1:], a)...)
				p.owners[a] = owner
				return a, nil
			}
		}
		return netip.Addr{}, fmt.Errorf("all %d addresses are taken", len(p.free))
	}
	a, err := netip.ParseAddr(wish)
	if err != nil {
		return netip.Addr{}, err
	}
	if !p.addresses.Contains(a) {
		return netip.Addr{}, fmt.Errorf("%s is outside of %s", a, p.addresses)
	}
	if o := p.owners[a]; o != "" && o != owner {
		return netip.Addr{}, fmt.Errorf("%s belongs to %s", a, o)
	}
	p.owners[a] = owner
	return a, nil
}

// release takes the owner's address back, and says whether there was one.
func (p *pool) release(owner string) bool {
	a := p.of(owner)
	delete(p.owners, a)
	return a.IsValid()
}
