package nft

import (
	"errors"
	"fmt"
	"slices"

	"flowd/flow"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An objectID names a stateful object. Objects of different kinds may have one name.
type objectID struct {
	kind nftables.ObjType
	name string
}

const (
	objectCounter = nftables.ObjTypeCounter
	objectTimeout = nftables.ObjTypeCtTimeout
)

func (o objectID) String() string {
	switch o.kind {
	case objectCounter:
		return "counter " + o.name
	case objectTimeout:
		return "ct timeout " + o.name
	}
	return "object " + o.name
}

// An objectState is a stateful object that the kernel has.
type objectState struct {
	objectID
	proto  flow.Proto        // of a ct timeout
	values map[uint16]uint32 // of a ct timeout: seconds by CTA_TIMEOUT_*
}

// object returns the object that the kernel has, if any.
func (s *state) object(id objectID) (objectState, bool) {
	for _, o := range s.objects {
		if o.objectID == id {
			return o, true
		}
	}
	return objectState{}, false
}

func (s *state) has(id objectID) bool {
	_, ok := s.object(id)
	return ok
}

// set returns the named set that the kernel has, if any.
func (s *state) set(name string) (setState, bool) {
	for _, have := range s.sets {
		if have.name == name {
			return have, true
		}
	}
	return setState{}, false
}

// Attributes of a ct timeout (enum nft_ct_timeout_timeout_attributes).
const (
	timeoutL3Proto = 1
	timeoutL4Proto = 2
	timeoutData    = 3
)

// lookObjects reads all stateful objects of the table.
func (c *Conn) lookObjects(s *state) error {
	replies, err := c.get(unix.NFT_MSG_GETOBJ, netlink.Dump, inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, tableName)
	}))
	if err != nil {
		return fmt.Errorf("look at objects: %w", err)
	}
	for _, m := range replies {
		o, table, err := parseObject(m)
		if err != nil {
			return fmt.Errorf("look at objects: %w", err)
		}
		if table == tableName {
			s.objects = append(s.objects, o)
		}
	}
	return nil
}

func parseObject(m netlink.Message) (o objectState, table string, err error) {
	o.values = map[uint16]uint32{}
	err = decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_OBJ_TABLE:
			table = a.String()
		case unix.NFTA_OBJ_NAME:
			o.name = a.String()
		case unix.NFTA_OBJ_TYPE: // before the data (nf_tables_fill_obj_info)
			o.kind = nftables.ObjType(a.Uint32())
		case unix.NFTA_OBJ_DATA:
			if o.kind == objectTimeout {
				a.Nested(o.decode)
			}
		}
	})
	return o, table, err
}

// decode decodes the data of a ct timeout.
func (o *objectState) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case timeoutL4Proto:
			o.proto = flow.Proto(a.Uint8())
		case timeoutData:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					o.values[a.Type()] = a.Uint32()
				}
				return nil
			})
		}
	}
	return nil
}

// lookSets reads all named sets of the table, and what is in those of ports.
func (c *Conn) lookSets(s *state) error {
	replies, err := c.get(unix.NFT_MSG_GETSET, netlink.Dump, inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, tableName)
	}))
	if err != nil {
		return fmt.Errorf("look at sets: %w", err)
	}
	for _, m := range replies {
		have, table, err := parseSet(m)
		if err == nil && have.flags == 0 && have.key == nftables.TypeInetService.GetNFTMagic() {
			err = c.lookPorts(&have)
		}
		if err != nil {
			return fmt.Errorf("look at sets: %w", err)
		}
		if table == tableName && have.flags&unix.NFT_SET_ANONYMOUS == 0 {
			s.sets = append(s.sets, have)
		}
	}
	return nil
}

func parseSet(m netlink.Message) (s setState, table string, err error) {
	err = decode([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_SET_TABLE:
			table = a.String()
		case unix.NFTA_SET_NAME:
			s.name = a.String()
		case unix.NFTA_SET_FLAGS:
			s.flags = a.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			s.key = a.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			s.len = a.Uint32()
		case unix.NFTA_SET_DESC:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.NFTA_SET_DESC_SIZE {
						s.size = a.Uint32()
					}
				}
				return nil
			})
		}
	})
	return s, table, err
}

// lookPorts reads what is in a set of ports. A set that is gone meanwhile is empty:
// the look will start over.
func (c *Conn) lookPorts(s *setState) error {
	replies, err := c.get(unix.NFT_MSG_GETSETELEM, netlink.Dump, inet(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		e.String(unix.NFTA_SET_ELEM_LIST_SET, s.name)
	}))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	err = decode(replies, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			a.Nested(s.decode)
		}
	})
	slices.Sort(s.ports)
	return err
}

// decode decodes a list of elements: within each the key, within that the value.
func (s *setState) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		a.Nested(func(a *netlink.AttributeDecoder) error {
			for a.Next() {
				if a.Type() != unix.NFTA_SET_ELEM_KEY {
					continue
				}
				a.Nested(func(a *netlink.AttributeDecoder) error {
					for a.Next() {
						if a.Type() == unix.NFTA_DATA_VALUE && len(a.Bytes()) == 2 {
							s.ports = append(s.ports, a.Uint16())
						}
					}
					return nil
				})
			}
			return nil
		})
	}
	return nil
}
