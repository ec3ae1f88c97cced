// Compares an embedding model with a reranker, both behind URLs: the Go twin of ../rerank_compare.py.
//
//	go run . -endpoint http://localhost:7997/rerank -model BAAI/bge-reranker-v2-m3
//
// Embeddings come from OPENAI_BASE_URL with OPENAI_API_KEY; with only the key from api.openai.com; with neither from the
// same server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"

	"github.com/lemni/lemni/examples/go/infinity"
)

const defaultEndpoint = "http://localhost:7997/rerank"

func main() {
	endpoint := flag.String("endpoint", os.Getenv("INFINITY_URL"), "reranker's `URL` (default "+defaultEndpoint+") [env: INFINITY_URL]")
	model := flag.String("model", "", "reranker's `name`; the server chooses without one")
	embeddingModel := flag.String("embedding-model", "", "embedding model's `name`; OpenAI's small one, or the server's own")
	apiKey := flag.String("api-key", "", "the reranker's `key`")
	flag.Parse()
	if err := run(context.Background(), *endpoint, *model, *embeddingModel, *apiKey); err != nil {
		text := err.Error()
		var refused *infinity.StatusError
		if errors.As(err, &refused) {
			text = strings.Replace(text, refused.Body, refused.Message(), 1)
		}
		fmt.Fprintln(os.Stderr, "rerank:", text)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, model, embeddingModel, apiKey string) error {
	endpoint, err := withPath(endpoint)
	if err != nil {
		return err
	}
	reranker, err := infinity.New(
		infinity.WithEndpoint(endpoint),
		infinity.WithModel(model),
		infinity.WithAPIKey(apiKey),
	)
	if err != nil {
		return err
	}
	embedder, err := newEmbedder(endpoint, embeddingModel, apiKey)
	if err != nil {
		return err
	}
	// All before the first line, so that what cannot be asked leaves no half of a comparison.
	comparisons := make([]comparison, len(testCases))
	for i, tc := range testCases {
		if comparisons[i].relevant, err = reranker.Rerank(ctx, tc.query, tc.documents); err != nil {
			return err
		}
	}
	for i, tc := range testCases {
		if comparisons[i].similar, err = embedder.similarities(ctx, tc.query, tc.documents); err != nil {
			return err
		}
	}
	name, err := embedder.name(ctx)
	if err != nil {
		return err
	}
	kind := kindOf(listed(ctx, endpoint, apiKey), model)
	if kind != crossEncoder {
		fmt.Fprintf(os.Stderr, "The model at %s is no cross-encoder. Serve one: lemni serve BAAI/bge-reranker-v2-m3\n", endpoint)
	}
	fmt.Printf("Using reranker endpoint: %s\n", endpoint)
	fmt.Printf("Using embedding model: %s\n", name)
	fmt.Println()
	for i, tc := range testCases {
		comparisons[i].print(tc, kind)
	}
	return nil
}

type comparison struct{ similar, relevant []infinity.Result }

func (c comparison) print(tc testCase, kind string) {
	line := strings.Repeat("=", 70)
	fmt.Printf("\n%s\nCase: %s\nQuery: %s\n%s\n", line, tc.name, tc.query, line)

	fmt.Println("\n--- Embedding Similarity (Bi-Encoder) ---")
	sort.SliceStable(c.similar, func(i, j int) bool { return c.similar[i].Score > c.similar[j].Score })
	show(c.similar)

	fmt.Printf("\n--- Reranker Scores (%s) ---\n", kind)
	show(c.relevant)
}

func show(results []infinity.Result) {
	for place, result := range results {
		fmt.Printf("%d. [Score: %.7f] %s\n", place+1, result.Score, result.Document)
	}
}

// An endpoint without a path is the base URL of a server, as other clients keep it in INFINITY_URL.
func withPath(endpoint string) (string, error) {
	if endpoint == "" {
		return defaultEndpoint, nil
	}
	parsed, err := url.Parse(endpoint)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
		return "", fmt.Errorf("the endpoint %q is no URL: it begins with http:// or https://", endpoint)
	}
	if parsed.Path == "" || parsed.Path == "/" {
		parsed.Path = "/rerank"
	}
	return parsed.String(), nil
}
