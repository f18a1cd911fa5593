package dataplane

import (
	"net/netip"

	"github.com/calicogo/calico/api"
)

// AttachmentID names an attachment of a container to the network, as CNI does.
type AttachmentID struct {
	ContainerID string
	IfName      string // in the pod: eth0
}

// Attachment is what a node's own records say of a pod's interface. For a pod of this
// node the record decides existence, interface and addresses; the datastore decides
// labels, profiles and ports.
type Attachment struct {
	ID        AttachmentID
	Interface Interface
	MAC       string
	Addrs     []netip.Addr
	// Endpoint is the WorkloadEndpoint that was committed for the attachment, with the
	// revision of that commit. It stands in for the stored one while the view of the
	// datastore is older.
	Endpoint *api.WorkloadEndpoint
}
