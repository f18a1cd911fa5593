package filter

import (
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// Rule says what happens to a packet that fits every match: first the actions, in order,
// then the verdict.
type Rule struct {
	Match   []Match
	Actions []Action
	Verdict Verdict
	Target  string // the chain of Jump and Goto, the map of Dispatch
}

// Verdict is where a packet goes on.
type Verdict uint8

const (
	Continue Verdict = iota // with the next rule
	Return                  // with the rule after the jump that led here; in a base chain: past it
	Jump                    // in another chain, and then here
	Goto                    // in another chain, and not here again
	Dispatch                // jump to the chain that a map names; with the next rule if it names none
	Drop
	Reject // and tell the sender, by ICMP
	Accept // by this hook's chains; other tables may still drop
	Reset  // drop, and end the TCP connection at the sender; the rule has matched TCP
)

func (v Verdict) String() string {
	return [...]string{"continue", "return", "jump", "goto", "dispatch", "drop", "reject", "accept", "reset"}[v]
}

// Action is done to a packet. Masquerade, SNAT and DNAT end the hook.
type Action interface{ isAction() }

type (
	Log struct {
		Prefix string
		Group  uint16         // of NFLOG; 0: as the backend was told, else the kernel's log
		Rate   dataplane.Rate // zero: unlimited
	}
	Count      struct{}
	SetMark    Bits     // of the packet
	SetCtMark  Bits     // of the flow
	Notrack    struct{} // raw hooks only
	Masquerade struct{} // the source becomes an address of the outgoing device
	SNAT       struct{ Addr netip.Addr }
	DNAT       struct {
		Addr netip.Addr
		Port uint16 // 0: as it is; else the rule has matched the protocol
	}
)

func (Log) isAction()        {}
func (Count) isAction()      {}
func (SetMark) isAction()    {}
func (SetCtMark) isAction()  {}
func (Notrack) isAction()    {}
func (Masquerade) isAction() {}
func (SNAT) isAction()       {}
func (DNAT) isAction()       {}
