// Package failpoint lets a test die, or fail, before and after every durable step.
//
// A durable step is a write that the process relies on after it has returned: a journal's commit, a file's fsync, the name of a
// file, a key in a token. Each has one constant here and one call of Do, All or Value around it, in the package that takes the
// step. Signatures are steps too, though they leave nothing behind: what is in the journal before and after them is the
// promise of the services.
//
// Without the build tag failpoint a call is the step and nothing else: it is inlined, and neither names nor variables of this
// package are in the binary (cmd/zegel's TestFailpointsCompiledOut). With it, ZEGEL_FAILPOINT says what happens, a list separated by ";":
//
//	MODE WHEN STEP[:N]      die after append CertificateIssued      fail before publish CRL:2
//
// MODE die kills the process with SIGKILL; fail has the step return ErrInjected, once. WHEN before: the step is not taken. WHEN after: the step
// was taken, so that fail is a step that failed but persisted, as an fsync whose error came after the bytes were on the disk. N counts
// the passes of the point in this process, from 1. ZEGEL_FAILPOINT_REACHED names a file to which each point that is passed is appended, a
// line each. The tests that die at every point are cmd/zegel's TestCrash; docs/crash-points.md says what is true after each.
//
// What is no point:
//   - the inside of bbolt's commit: pages, fdatasync, meta page, fdatasync. That either both or neither count is what bbolt promises
//     and tests; to the journal a commit is one step.
//   - the names that a file has between link(2) and the removal of its temporary one, and folders made before anything is in them: nothing
//     reads them.
//   - OCSP responses: their signature leaves no trace, and the replica that they are read from is written by the step replicate only.
//   - the management CA's signatures: they are nowhere but in the files whose writing is a step.
//   - what only the demo writes: one that did not come up is started again from nothing.
//   - the initialisation of tokens: no command of an operator's does it yet.
//   - a loss of power. A process that is killed leaves to the kernel what it wrote; that every step ends in an fsync is shown by the
//     modes that let it fail, not by dying.
package failpoint

// Step names a durable step. Its methods are for tests and for builds with the tag.
type Step uint8

// The steps. table says what each is.
const (
	AppendDaemonStarted Step = iota
	AppendCeremonyHeld
	AppendCertificateIntended
	AppendCertificateIssued
	AppendCertificateAbandoned
	AppendCertificateRevoked
	AppendCRLReserved
	AppendCRLIssued
	AppendTimestampIssued
	AppendClockChanged
	AppendKeyDuty
	SignCheckpoint
	StoreCheckpoint
	StoreLastCheckpoint
	FillJournal
	NameJournal
	Replicate
	StoreFork
	SignCertificate
	SignCRL
	PublishCRL
	SignTimestamp
	WriteTemporary
	SyncFolder
	WriteKeyFile
	GenerateKeyPair
	GenerateSecretKey
	UnwrapKey
	CreatePublicKey
	CopyKey
	DestroyObject
	WriteDutyFile
	MakeCeremonyFolder
	WriteCeremonyFile
	WriteCeremonyFailure
	PutCeremonyInPlace
	WriteIssuedCertificate
	WriteTimestamp
	steps // how many there are
)

// table is the one list of names and meanings.
var table = [steps]struct{ name, what string }{
	AppendDaemonStarted:        {"append DaemonStarted", "a daemon records that it starts"},
	AppendCeremonyHeld:         {"append CeremonyHeld", "the ceremony makes its report the first entry of a journal"},
	AppendCertificateIntended:  {"append CertificateIntended", "the CA records what it is about to sign"},
	AppendCertificateIssued:    {"append CertificateIssued", "the CA records the certificate it signed"},
	AppendCertificateAbandoned: {"append CertificateAbandoned", "the CA closes an intent that came to nothing"},
	AppendCertificateRevoked:   {"append CertificateRevoked", "the CA records a revocation"},
	AppendCRLReserved:          {"append CRLReserved", "the CA takes a CRL number"},
	AppendCRLIssued:            {"append CRLIssued", "the CA records the CRL it signed"},
	AppendTimestampIssued:      {"append TimestampIssued", "the TSA records the token it signed"},
	AppendClockChanged:         {"append ClockChanged", "the TSA records that its clock is vouched for, or no more"},
	AppendKeyDuty:              {"append KeyDuty", "the CA records what officers did to a key"},
	SignCheckpoint:             {"sign checkpoint", "a log's key signs its tree"},
	StoreCheckpoint:            {"store checkpoint", "a running log stores its newest checkpoint"},
	StoreLastCheckpoint:        {"store last checkpoint", "a log that stops stores a checkpoint over all of its entries"},
	FillJournal:                {"fill journal", "a new journal is written under a temporary name"},
	NameJournal:                {"name journal", "a new journal, whole by now, gets its name"},
	Replicate:                  {"replicate", "a responder commits leaves and checkpoint of the feed"},
	StoreFork:                  {"store fork", "a responder remembers that its log contradicted itself"},
	SignCertificate:            {"sign certificate", "the CA's key signs a certificate"},
	SignCRL:                    {"sign CRL", "the CA's key signs a CRL"},
	PublishCRL:                 {"publish CRL", "the CA puts a CRL into publish/"},
	SignTimestamp:              {"sign timestamp", "the TSU's key signs a token"},
	WriteTemporary:             {"write temporary file", "the content of any file reaches the disk, under a temporary name"},
	SyncFolder:                 {"sync folder", "the name of any file or folder reaches the disk"},
	WriteKeyFile:               {"write key file", "a soft token stores a new key"},
	GenerateKeyPair:            {"generate key pair", "a PKCS#11 token makes a key pair"},
	GenerateSecretKey:          {"generate secret key", "a PKCS#11 token makes a wrapping key"},
	UnwrapKey:                  {"unwrap key", "a PKCS#11 token makes a key of what was wrapped, first on trial"},
	CreatePublicKey:            {"create public key", "a PKCS#11 token stores the public key of a restored key, or of a transport key"},
	CopyKey:                    {"copy key", "a PKCS#11 token stores the wrapping key that it was sent"},
	DestroyObject:              {"destroy object", "a PKCS#11 token destroys one object of a key"},
	WriteDutyFile:              {"write duty file", "zegel token writes a backup, a public key or a record"},
	MakeCeremonyFolder:         {"make ceremony folder", "the ceremony makes OUTPUT.unfinished"},
	WriteCeremonyFile:          {"write ceremony file", "the ceremony writes a certificate, key, CRL, configuration or report"},
	WriteCeremonyFailure:       {"write FAILED.txt", "a ceremony that stops says what it leaves"},
	PutCeremonyInPlace:         {"put ceremony in place", "the ceremony renames OUTPUT.unfinished to OUTPUT"},
	WriteIssuedCertificate:     {"write issued certificate", "zegel issue --out writes the certificate"},
	WriteTimestamp:             {"write time-stamp file", "zegel timestamp writes FILE.tsr"},
}

// Steps are all of them.
func Steps() []Step {
	all := make([]Step, steps)
	for i := range all {
		all[i] = Step(i)
	}
	return all
}

// Name is what ZEGEL_FAILPOINT calls the step.
func (s Step) Name() string { return table[s].name }

// What tells who takes the step, and what it is.
func (s Step) What() string { return table[s].what }
