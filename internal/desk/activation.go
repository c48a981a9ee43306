package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// ActivationRequest opens a daemon's tokens: POST /v1/activation (security officer, system operator). With neither PIN nor share the
// daemon tries what it has, and what its sources say now. PIN and Share are base64 in JSON; whoever makes one wipes it.
type ActivationRequest struct {
	Token string `json:"token,omitempty"` // label of the token, or its URI without an object; needed where several could be meant
	PIN   []byte `json:"pin,omitempty"`
	Share []byte `json:"share,omitempty"` // the text of a share of the PIN (zegel token split)
	Trust bool   `json:"trust,omitempty"` // use the token again that gave a wrong signature: it was examined
}

// States of a TokenActivation.
const (
	TokenOpen        = "open"        // nothing is in the way
	TokenWaiting     = "waiting"     // people have to enter its PIN
	TokenRefused     = "refused"     // it turned the PIN down
	TokenDeactivated = "deactivated" // its PIN can be read again, by an activation
)

// TokenActivation is how one token of a daemon stands.
type TokenActivation struct {
	Token     string `json:"token"`               // URI without an object
	Label     string `json:"label"`               // what people call it
	State     string `json:"state"`               // open, waiting, refused or deactivated
	Source    string `json:"source"`              // the pin-source: prompt, shares:…, file:…
	Threshold int    `json:"threshold,omitempty"` // shares that open the PIN, each from another officer
	Shares    int    `json:"shares,omitempty"`    // shares there are
	Entered   []int  `json:"entered,omitempty"`   // numbers of those that were entered
	Detail    string `json:"detail,omitempty"`    // what stands in the way
}

// Activation is how a daemon's tokens stand: GET and POST /v1/activation, POST /v1/deactivation.
type Activation struct {
	Active bool              `json:"active"` // every token was opened, and they were not deactivated since
	Tokens []TokenActivation `json:"tokens"`
}

// Activation asks how the daemon's tokens stand. Every daemon answers it.
func (c *Client) Activation(ctx context.Context) (Activation, error) {
	var reply Activation
	return reply, c.call(ctx, http.MethodGet, "/v1/activation", nil, &reply)
}

// Activate opens the daemon's tokens, or brings one PIN or share towards that. It wipes what it has written of the request; the
// request itself is the caller's to wipe.
func (c *Client) Activate(ctx context.Context, r ActivationRequest) (Activation, error) {
	var reply Activation
	text, err := json.Marshal(r)
	if err != nil {
		return reply, fmt.Errorf("write request: %w", err)
	}
	defer clear(text)
	return reply, c.call(ctx, http.MethodPost, "/v1/activation", json.RawMessage(text), &reply)
}

// Deactivate closes the daemon's tokens: nothing is signed until somebody activates them.
func (c *Client) Deactivate(ctx context.Context) (Activation, error) {
	var reply Activation
	return reply, c.call(ctx, http.MethodPost, "/v1/deactivation", struct{}{}, &reply)
}
