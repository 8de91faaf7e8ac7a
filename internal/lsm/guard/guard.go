// Package guard has the programs that decide about AF_ALG in the kernel, as
// objects, and the layout of what they share with user space.
//
// guard.c is their source, for two attachments: LSM and fmod_ret. The objects
// are committed, so that a build needs no compiler for BPF; make generate makes
// them again, and a test compares.
package guard

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -type key -type algorithm -type binary -type template -type rules -type meta -type binary_rules -type capability_rules -type container -type facts -type use -type times -type trail -type unit_name -type open_file -type question -type variable -type kind -type flag -type fact -type hook -type counter LSM guard.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel FmodRet guard.c -- -DFMOD_RET -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations

import (
	"crypto/sha256"
	"encoding/hex"
	"unsafe"
)

// The layouts that user space fills in or reads.
type (
	Algorithm       = LSMAlgorithm
	Binary          = LSMBinary
	BinaryRules     = LSMBinaryRules
	CapabilityRules = LSMCapabilityRules
	Container       = LSMContainer
	Facts           = LSMFacts
	Key             = LSMKey
	Mark            = LSMMark
	Meta            = LSMMeta
	OpenFile        = LSMOpenFile
	Question        = LSMQuestion
	Rules           = LSMRules
	Template        = LSMTemplate
	Times           = LSMTimes
	Trail           = LSMTrail
	UnitName        = LSMUnitName
	Use             = LSMUse
	Variable        = LSMVariable
)

// What an entry of a table is about.
const (
	KindMeta         = uint32(LSMKindKIND_META)
	KindAlgorithm    = uint32(LSMKindKIND_ALGORITHM)
	KindBinary       = uint32(LSMKindKIND_BINARY)
	KindUser         = uint32(LSMKindKIND_USER)
	KindUnit         = uint32(LSMKindKIND_UNIT)
	KindTemplate     = uint32(LSMKindKIND_TEMPLATE)
	KindCapabilities = uint32(LSMKindKIND_CAPABILITIES)
)

// Flags of a table.
const (
	FlagAudit    = uint32(LSMFlagFLAG_AUDIT)
	FlagZeroCopy = uint32(LSMFlagFLAG_ZERO_COPY)
)

// Facts that are flags.
const (
	FactInitialUsers = uint32(LSMFactFACT_INITIAL_USERS)
	FactContained    = uint32(LSMFactFACT_CONTAINED)
	FactListener     = uint32(LSMFactFACT_LISTENER)
	FactClean        = uint32(LSMFactFACT_CLEAN)
	FactBinary       = uint32(LSMFactFACT_BINARY)
)

// Hooks of a use.
const (
	HookSocket = uint8(LSMHookHOOK_SOCKET)
	HookBind   = uint8(LSMHookHOOK_BIND)
	HookAccept = uint8(LSMHookHOOK_ACCEPT)
)

// Counters, by index.
const (
	CountAllowed  = int(LSMCounterCOUNT_ALLOWED)
	CountDenied   = int(LSMCounterCOUNT_DENIED)
	CountNoTable  = int(LSMCounterCOUNT_NO_TABLE)
	CountUnmarked = int(LSMCounterCOUNT_UNMARKED)
	CountFull     = int(LSMCounterCOUNT_FULL)
	CountLost     = int(LSMCounterCOUNT_LOST)
	CountZeroCopy = int(LSMCounterCOUNT_ZERO_COPY)
)

// Limits of the layouts: bytes of text, without a NUL, and numbers.
const (
	MaxRules          = 256
	MaxCapabilitySets = 16
	MaxName           = len(Algorithm{}.Name) - 1
	MaxUnit           = 118 // a name of 119 may have been cut
	MaxPrefix         = len(Template{}.Prefix) - 1
	MaxLevels         = len(Question{}.Cgroup)
	Questions         = 1024 // answered by one run
)

// ValueSize is the size of a value of a table: that of its largest kind.
const ValueSize = unsafe.Sizeof(Meta{})

// SetText writes a text with a NUL after it, and reports whether it fits.
func SetText(to []int8, s string) bool {
	if len(s) >= len(to) {
		return false
	}
	for i := range len(s) {
		to[i] = int8(s[i])
	}
	return true
}

// Text reads a text that ends with a NUL, or fills its place.
func Text(from []int8) string {
	b := make([]byte, 0, len(from))
	for _, c := range from {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// Digest identifies the objects of this build.
func Digest() string {
	h := sha256.New()
	h.Write(_LSMBytes)
	h.Write(_FmodRetBytes)
	return hex.EncodeToString(h.Sum(nil))
}
