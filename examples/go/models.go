package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"time"
)

const crossEncoder = "Cross-Encoder"

// kinds say by the first of its capabilities that is here how a model ranks.
var kinds = map[string]string{
	"score":        crossEncoder,
	"rerank":       crossEncoder,
	"sparse":       "Learned Sparse",
	"multi_vector": "Late Interaction",
	"embed":        "Embedding Model: cosine",
}

type servedModel struct {
	ID           string   `json:"id"`
	Capabilities []string `json:"capabilities"`
}

// listed is what the server says of its models, beside its /rerank; nothing if it has no such list.
func listed(ctx context.Context, endpoint, apiKey string) []servedModel {
	parsed, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	address := parsed.ResolveReference(&url.URL{Path: "models"}).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil
	}
	if apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+apiKey)
	}
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var list struct {
		Data []servedModel `json:"data"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&list) != nil {
		return nil
	}
	return list.Data
}

// kindOf is what the model of that name is; without one, a cross-encoder if there is one, as Lemni chooses. A server that
// does not say what its models do is believed.
func kindOf(models []servedModel, name string) string {
	var named []servedModel
	for _, model := range models {
		if path.Base(model.ID) == path.Base(name) {
			named = append(named, model)
		}
	}
	if len(named) > 0 {
		models = named
	}
	found := crossEncoder
	for _, model := range models {
		switch kind := model.kind(); kind {
		case "":
		case crossEncoder:
			return crossEncoder
		default:
			found = kind
		}
	}
	return found
}

// kind is "" for a model that does not rerank.
func (m servedModel) kind() (kind string) {
	reranks := false
	for _, able := range m.Capabilities {
		reranks = reranks || able == "rerank" || able == "score"
		if kind == "" {
			kind = kinds[able]
		}
	}
	if !reranks {
		return ""
	}
	return kind
}
